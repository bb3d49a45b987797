//! Tokens: where they come from, how they are renewed, and that nobody ever gets to read one.

use crate::fixtures::{PROBLEM, always, bucket, builder, good, hello, pull, push};
use crate::server::{Received, Reply, Server};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_core::Remote;
use syncline_remote_http::{HttpRemote, TokenCommand, TokenSource};
use tracing_subscriber::fmt::MakeWriter;

const CANARY: &str = "canary-8f14e45fceea167a";

fn unauthorized(request: &Received) -> Reply {
    let body = r#"{"type":"urn:syncline:problem:token-refused","status":401,"title":"No"}"#;
    Reply::marked(request, 401, PROBLEM, body)
}

/// Believes only this token.
fn wants(token: &'static str) -> Server {
    always(move |request| {
        match request.header("authorization") == Some(&format!("Bearer {token}")) {
            true => good(request),
            false => unauthorized(request),
        }
    })
}

/// A callback that gives token-1, token-2 and so on, and its count of calls.
fn counting() -> (TokenSource, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let callback = Arc::new(move || {
        std::thread::sleep(Duration::from_millis(20));
        Ok(format!(
            "token-{}",
            counter.fetch_add(1, Ordering::SeqCst) + 1
        ))
    });
    (TokenSource::Callback(callback), calls)
}

#[tokio::test]
async fn a_static_token_cannot_be_renewed() {
    let server = wants("another");
    let source = TokenSource::Static(CANARY.into());
    let remote = builder(&server).token(source).build().unwrap();
    assert_eq!(bucket(&hello(&remote).await.unwrap_err()), "auth");
    let reason = remote.refresh_credentials().await.unwrap_err();
    assert!(reason.starts_with("the token was refused; "), "{reason}");
    let remote = builder(&server).build().unwrap();
    let reason = remote.refresh_credentials().await.unwrap_err();
    assert!(reason.contains("none is configured"), "{reason}");
}

#[tokio::test]
async fn a_file_is_read_again_when_its_token_was_refused() {
    let server = wants("new-token");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "  old-token\r").unwrap();
    let source = TokenSource::File(file.path().to_owned());
    let remote = builder(&server).token(source).build().unwrap();
    assert_eq!(bucket(&hello(&remote).await.unwrap_err()), "auth");
    let reason = remote.refresh_credentials().await.unwrap_err();
    assert!(reason.contains("still holds the same one"), "{reason}");
    std::fs::write(file.path(), "new-token\n").unwrap();
    remote.refresh_credentials().await.unwrap();
    hello(&remote).await.unwrap();
    std::fs::remove_file(file.path()).unwrap();
    hello(&remote).await.unwrap();
}

/// A token that was not refused may still be the wrong one: it names another account.
#[tokio::test]
async fn another_token_in_the_file_is_taken_up_without_a_refusal() {
    let server = always(good);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "of-joe").unwrap();
    let source = TokenSource::File(file.path().to_owned());
    let remote = builder(&server).token(source).build().unwrap();
    for (content, sent) in [
        ("of-joe", "of-joe"),
        ("of-ann", "of-ann"),
        ("", "of-ann"),
        ("half a", "of-ann"),
        ("of-bob", "of-bob"),
    ] {
        std::fs::write(file.path(), content).unwrap();
        hello(&remote).await.unwrap();
        let received = server.received();
        let header = received
            .last()
            .unwrap()
            .header("authorization")
            .unwrap()
            .to_owned();
        assert_eq!(header, format!("Bearer {sent}"), "after {content:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_is_run_again_when_its_token_was_refused() {
    let server = wants("new-token");
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let line =
        "echo run >> \"$0\"; [ $(wc -l < \"$0\") -gt 1 ] && echo new-token || echo old-token";
    let command = TokenCommand::new("sh", ["-c", line, runs.to_str().unwrap()]);
    let remote = builder(&server)
        .token(TokenSource::Command(command))
        .build()
        .unwrap();
    assert_eq!(bucket(&hello(&remote).await.unwrap_err()), "auth");
    remote.refresh_credentials().await.unwrap();
    hello(&remote).await.unwrap();
    hello(&remote).await.unwrap();
    let runs = std::fs::read_to_string(&runs).unwrap();
    assert_eq!(
        runs.lines().count(),
        2,
        "run more often than it was refused"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_that_fails_hangs_or_repeats_itself() {
    let server = wants("never");
    for line in [
        "echo canary >&2; exit 1",
        "sleep 30; echo canary",
        "echo two words",
        "true",
    ] {
        let command = TokenCommand::new("sh", ["-c", line]).timeout(Duration::from_millis(200));
        let remote = builder(&server)
            .token(TokenSource::Command(command))
            .build()
            .unwrap();
        let error = hello(&remote).await.unwrap_err();
        let reason = remote.refresh_credentials().await.unwrap_err();
        assert_eq!(bucket(&error), "auth", "{line}: {error}");
        assert!(
            !format!("{error}{reason}").contains("canary"),
            "{error} {reason}"
        );
    }
    let repeats = TokenSource::Command(TokenCommand::new("echo", [CANARY]));
    let remote = builder(&server).token(repeats).build().unwrap();
    hello(&remote).await.unwrap_err();
    let reason = remote.refresh_credentials().await.unwrap_err();
    assert!(
        reason.contains("same one") && !reason.contains(CANARY),
        "{reason}"
    );
    assert_eq!(server.received().len(), 1, "sent without a token");
}

#[tokio::test]
async fn a_file_without_a_usable_token() {
    let server = wants("new-token");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let source = TokenSource::File(path.clone());
    let remote = builder(&server).token(source).build().unwrap();
    for content in [
        None,
        Some("".into()),
        Some(format!("{CANARY} \n x")),
        Some("x".repeat(99_999)),
    ] {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = hello(&remote).await.unwrap_err();
        let reason = remote.refresh_credentials().await.unwrap_err();
        assert_eq!(bucket(&error), "auth", "{error}");
        assert!(!format!("{error}{reason}").contains(CANARY));
    }
    std::fs::write(&path, "new-token").unwrap();
    hello(&remote).await.unwrap();
    assert_eq!(server.received().len(), 1, "sent without a token");
}

#[tokio::test]
async fn fifty_refusals_ask_the_callback_once() {
    let server = wants("token-2");
    let (source, calls) = counting();
    let remote = Arc::new(builder(&server).token(source).build().unwrap());
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let remote = Arc::clone(&remote);
            tokio::spawn(async move {
                if hello(&remote).await.is_err() {
                    remote.refresh_credentials().await.unwrap();
                    hello(&remote).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_callback_that_fails_panics_hangs_or_repeats_itself() {
    let server = wants("never");
    let fails = || Err(format!("the keychain is locked; it held {CANARY}"));
    let panics = || panic!("no");
    let hangs = || {
        std::thread::sleep(Duration::from_millis(900));
        Ok(CANARY.to_owned())
    };
    let callbacks: [Arc<dyn Fn() -> Result<String, String> + Send + Sync>; 3] =
        [Arc::new(fails), Arc::new(panics), Arc::new(hangs)];
    for callback in callbacks {
        let remote = HttpRemote::builder(&server.url)
            .request_timeout(Duration::from_millis(200))
            .token(TokenSource::Callback(callback))
            .build()
            .unwrap();
        assert_eq!(bucket(&hello(&remote).await.unwrap_err()), "auth");
        remote.refresh_credentials().await.unwrap_err();
    }
    let repeats = TokenSource::Callback(Arc::new(|| Ok(CANARY.to_owned())));
    let remote = builder(&server).token(repeats).build().unwrap();
    hello(&remote).await.unwrap_err();
    let reason = remote.refresh_credentials().await.unwrap_err();
    assert!(
        reason.contains("same one") && !reason.contains(CANARY),
        "{reason}"
    );
}

/// A renewal whose caller gave up still counts: a rotating token must not be lost.
#[tokio::test]
async fn a_renewal_outlives_its_caller() {
    let server = wants("token-2");
    let (source, calls) = counting();
    let remote = builder(&server).token(source).build().unwrap();
    hello(&remote).await.unwrap_err();
    let gave_up = tokio::time::timeout(Duration::from_millis(5), remote.refresh_credentials());
    assert!(gave_up.await.is_err());
    hello(&remote).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

/// Collects everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

/// The server throws the token back in every way it can; nobody repeats it.
#[tokio::test]
async fn no_token_is_ever_shown() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    // For all tests at once: a subscriber of one thread can miss what other threads register.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let mut shown = String::new();
    for status in [200, 302, 400, 401, 403, 410, 413, 415, 503] {
        let server = always(move |request| {
            let thrown = request.header("authorization").unwrap_or_default();
            let body = format!(
                r#"{{"type":"{thrown}","status":1,"title":"{thrown}","detail":"{thrown} and row-value"}}"#
            );
            let reply = Reply::marked(request, status, PROBLEM, body);
            reply.header("location", &format!("http://{CANARY}.example.org"))
        });
        let source = TokenSource::Static(CANARY.into());
        shown += &format!("{:?}", builder(&server).token(source.clone()));
        let remote = builder(&server).token(source.clone()).build().unwrap();
        let errors = [
            hello(&remote).await.unwrap_err(),
            push(&remote, &["{\"f\":\"row-value\"}"]).await.unwrap_err(),
            pull(&remote, None).await.unwrap_err(),
        ];
        let reason = remote.refresh_credentials().await.unwrap_err();
        shown += &format!("{remote:?} {source:?} {errors:?} {reason}");
        shown += &errors.map(|error| error.to_string()).join(" ");
    }
    assert!(!shown.contains(CANARY), "{shown}");
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        !logged.contains(CANARY) && !logged.contains("row-value"),
        "{logged}"
    );
    for field in [
        "method=POST",
        "path=/v1/push",
        "status=503",
        "elapsed_ms=",
        "request=",
    ] {
        assert!(logged.contains(field), "{field} is missing in {logged}");
    }
}
