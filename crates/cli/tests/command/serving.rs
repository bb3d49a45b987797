//! `serve` and `token` as an operator meets them.

use crate::harness::{Home, Running, Server, run, syncline, token, with_token};

#[test]
fn signals_stop_it_cleanly() {
    for signal in ["TERM", "INT"] {
        let home = Home::new();
        let server = Server::start(home.folder.path());
        assert!(
            server.url.starts_with("http://127.0.0.1:"),
            "{}",
            server.url
        );
        assert!(!server.url.ends_with(":0"));
        let ran = server.stop(signal).expect_code(0);
        assert_eq!(ran.stderr, "");
    }
}

#[test]
fn what_was_served_is_there_after_a_restart() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached("a.db", "INSERT INTO project VALUES ('p', 'x')", &server.url);
    let b = home.attached("b.db", "", &server.url);
    with_token(&server, &["sync", &a]).expect_code(0);
    let (address, old_token) = (server.address().to_owned(), server.token.clone());
    server.stop("TERM").expect_code(0);
    let mut server = Server::start_with(home.folder.path(), &address, &[]);
    // Tokens outlive the server.
    server.token = old_token;
    let pulled = with_token(&server, &["sync", &b, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(pulled["pulled"], 1);
}

#[test]
fn a_directory_is_served_by_one_process() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let data = server.data.to_str().unwrap();
    let serve = ["serve", "--data", data, "--listen", "127.0.0.1:0", "--json"];
    let ran = run(syncline(&serve)).expect_code(1);
    assert_eq!(ran.json()["error"]["code"], "data-in-use");
    assert!(
        ran.stderr.contains("another process") && ran.stderr.contains("hint: "),
        "{ran:?}"
    );
}

#[test]
fn an_address_that_is_taken_is_told() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let other = home.path("other");
    let serve = [
        "serve",
        "--data",
        other.to_str().unwrap(),
        "--listen",
        server.address(),
    ];
    let ran = run(syncline(&serve)).expect_code(1);
    assert!(
        ran.stderr.contains("127.0.0.1:0 picks a free one"),
        "{ran:?}"
    );
    assert_eq!(ran.stdout, "");
}

#[test]
fn what_cannot_be_served_is_refused() {
    let home = Home::new();
    let file = home.path("file");
    std::fs::write(&file, "x").unwrap();
    let config = home.path("server.toml");
    let data = home.path("data");
    let (data, file, config) = (
        data.to_str().unwrap(),
        file.to_str().unwrap(),
        config.to_str().unwrap(),
    );
    let listen = ["--listen", "127.0.0.1:0"];
    let ran = run(syncline(
        &[&["serve", "--data", file], &listen[..]].concat(),
    ))
    .expect_code(1);
    assert!(
        ran.stderr.contains("hint: --data names a directory"),
        "{ran:?}"
    );
    run(syncline(&["token", "--data", file, "--subject", "joe"])).expect_code(1);

    let with_config = [&["serve", "--data", data, "--config", config], &listen[..]].concat();
    let ran = run(syncline(&with_config)).expect_code(1);
    assert!(ran.stderr.contains("server.toml"), "{ran:?}");
    std::fs::write(config, "[types.task]\nshema = \"x\"\n").unwrap();
    let ran = run(syncline(&with_config)).expect_code(1);
    assert!(
        ran.stderr.contains("line 2") && ran.stderr.contains("shema"),
        "{ran:?}"
    );
    // Nothing is made before the configuration is read.
    assert!(!home.path("data").exists());
    std::fs::write(config, "[types.task]\nschema = { type = 5 }\n").unwrap();
    let ran = run(syncline(&with_config)).expect_code(1);
    assert!(ran.stderr.contains("task"), "{ran:?}");
}

#[test]
fn the_ready_line_can_be_json() {
    let home = Home::new();
    let data = home.path("data");
    let mut command = syncline(&["serve", "--listen", "127.0.0.1:0", "--json", "--data"]);
    command.arg(&data);
    let server = Running::start(command);
    crate::harness::until("it serves", std::time::Duration::from_secs(10), || {
        data.join("server.db").exists() && data.join("token-secret").exists()
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    server.signal("TERM");
    let ran = server.end().expect_code(0);
    assert!(
        ran.json()["listening"]
            .as_str()
            .unwrap()
            .starts_with("http://127.0.0.1:")
    );
}

#[test]
fn a_token_stands_alone_on_stdout() {
    let home = Home::new();
    let data = home.path("made/as/needed");
    let one = token(
        &data,
        &["--subject", "joe", "--tenant", "acme", "--ttl", "12h"],
    );
    assert_eq!(one.split('.').count(), 3);
    assert!(!one.contains(char::is_whitespace));
    let mut command = syncline(&["token", "--subject", "joe", "--json", "--data"]);
    let json = run({
        command.arg(&data);
        command
    })
    .expect_code(0)
    .json();
    assert_eq!(json["tenant"], "default");
    assert!(json["expires_at"].is_i64() && json["token"].is_string());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(data.join("token-secret"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn tenants_do_not_see_each_other() {
    let home = Home::new();
    let mut server = Server::start(home.folder.path());
    let a = home.attached("a.db", "INSERT INTO project VALUES ('p', 'x')", &server.url);
    with_token(&server, &["sync", &a]).expect_code(0);
    server.token = token(&server.data, &["--subject", "joe", "--tenant", "acme"]);
    let b = home.attached("b.db", "", &server.url);
    let pulled = with_token(&server, &["sync", &b, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(pulled["pulled"], 0);
}
