//! Scripts of the server on SQLite: push, pull, purge, a new history, a restart.

use crate::matrix::{Scene, Script};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::Path;
use syncline_fault_vfs::Faults;
use syncline_protocol::{
    Access, ChangeKind, HEADER_CLIENT, HEADER_PROTOCOL, PROTOCOL_VERSION, Principal, PullLine,
    Value,
};
use syncline_server::{
    Authenticator, Identity, Now, Request, Response, ServerConfig, Service, Storage, issue_token,
    purge, rotate_epoch,
};
use syncline_server_sqlite::SqliteStorage;
use tempfile::TempDir;

const SECRET: &[u8] = b"a secret of exactly enough bytes";
const CLIENT: &str = "0123456789abcdef0123456789abcdef";
const DAY_MS: i64 = 86_400_000;

pub(crate) fn scripts() -> Vec<Script> {
    let script = |name, prepare| Script { name, prepare };
    vec![
        script("server-push", || scene(Work::Push)),
        script("server-pull", || scene(Work::Pull)),
        script("server-purge", || scene(Work::Purge)),
        script("server-new-history", || scene(Work::NewHistory)),
        script("server-restart", || scene(Work::Restart)),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Push,
    Pull,
    Purge,
    NewHistory,
    Restart,
}

struct Server {
    /// Dropped before the folder: it has the files open.
    service: Option<Service<SqliteStorage>>,
    faults: Faults,
    folder: TempDir,
    work: Work,
    now_ms: i64,
    /// Results that were given, by key.
    told: BTreeMap<String, Json>,
    epochs: Vec<String>,
    acknowledged: bool,
}

/// Each mutation's key and body. The first batch is there when the work begins.
fn batches() -> [Vec<Json>; 2] {
    let make = |key: &str, id: &str, more: Json| {
        let mut mutation = json!({"key": key, "mutation": key, "type": "task", "id": id});
        let own = mutation.as_object_mut().unwrap();
        own.extend(more.as_object().unwrap().clone());
        mutation
    };
    let create =
        |key: &str, id: &str| make(key, id, json!({"op": "create", "fields": {"title": key}}));
    let update = |key: &str, id: &str, after: &str| {
        let base = json!({ "after": after });
        make(
            key,
            id,
            json!({"op": "update", "base": base, "fields": {"title": key}}),
        )
    };
    let delete = |key: &str, id: &str, after: &str| {
        make(key, id, json!({"op": "delete", "base": {"after": after}}))
    };
    [
        vec![create("a1", "1"), create("a2", "2"), create("a3", "3")],
        vec![
            create("b1", "4"),
            update("b2", "1", "a1"),
            // Taken already: a conflict, recorded as such.
            create("b3", "2"),
            delete("b4", "3", "a3"),
            update("b5", "4", "b1"),
        ],
    ]
}

/// What the server has after both, and how many effects that took.
const EXPECTED: &str = "1=b2 2=a2 4=b5";
const EFFECTS: i64 = 3 + 4;

fn scene(work: Work) -> Box<dyn Scene> {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::in_folder(folder.path());
    let mut server = Server {
        service: None,
        faults,
        folder,
        work,
        now_ms: 1_800_000_000_000,
        told: BTreeMap::new(),
        epochs: Vec::new(),
        acknowledged: false,
    };
    server.start().unwrap();
    server.push(0);
    if work != Work::Push {
        server.push(1);
    }
    server.epochs.push(server.epoch());
    if work == Work::Purge {
        // A first purge notes where the head is; long after, everything below is old.
        server.purge().unwrap();
        server.now_ms += 400 * DAY_MS;
    }
    Box::new(server)
}

impl Server {
    fn start(&mut self) -> Result<(), syncline_server_sqlite::OpenError> {
        // Only one may serve the folder.
        self.service = None;
        let storage = SqliteStorage::open(self.folder.path())?;
        let authenticator = Authenticator::hs256(SECRET).unwrap();
        let service = Service::new(storage, authenticator, ServerConfig::default()).unwrap();
        self.service = Some(service);
        Ok(())
    }

    fn now(&self) -> Now {
        Now::from_unix_ms(self.now_ms)
    }

    fn service(&self) -> &Service<SqliteStorage> {
        self.service.as_ref().expect("it is running")
    }

    /// Asks, and judges what every answer must be: the protocol's, and a failure only as a 503 or 5xx
    /// that says whether to try again.
    fn ask(&self, method: &str, target: &str, body: Option<Json>) -> Response {
        let identity = Identity {
            principal: Principal {
                tenant: "acme".to_owned(),
                subject: "ann".to_owned(),
            },
            access: Access::Write,
        };
        let token = issue_token(SECRET, &identity, self.now(), 3600).unwrap();
        let mut request = Request::new(method, target)
            .header(HEADER_PROTOCOL, PROTOCOL_VERSION)
            .header(HEADER_CLIENT, CLIENT)
            .header("authorization", format!("Bearer {token}"));
        if let Some(body) = body {
            request = request.json(body.to_string());
        }
        let response = self.service().handle(&request, self.now());
        if response.status != 200 {
            let text = String::from_utf8_lossy(&response.body);
            assert!(
                matches!(response.status, 500 | 503 | 507),
                "{}: {text}",
                response.status
            );
            let problem: Json = serde_json::from_slice(&response.body).expect("a problem");
            assert!(problem["type"].is_string(), "{problem}");
        }
        response
    }

    /// Pushes a batch; each key is answered as it was before.
    fn push(&mut self, nth: usize) -> bool {
        let body = json!({"client": CLIENT, "mutations": batches()[nth]});
        let response = self.ask("POST", "/v1/push", Some(body));
        if response.status != 200 {
            return false;
        }
        let answer: Json = serde_json::from_slice(&response.body).unwrap();
        let mut whole = true;
        for result in answer["results"].as_array().unwrap() {
            let key = result["key"].as_str().unwrap().to_owned();
            let outcome = result["outcome"].clone();
            if matches!(outcome.as_str(), Some("retry" | "skipped")) {
                whole = false;
                continue;
            }
            let said = json!([outcome, result["version"]]);
            let before = self.told.insert(key.clone(), said.clone());
            assert!(
                before.as_ref().is_none_or(|before| *before == said),
                "{key}: first {before:?}, then {said}"
            );
        }
        whole
    }

    /// Everything, in small pages; `None` if a page was refused.
    fn listing(&self) -> Option<String> {
        let mut rows = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let response = self.ask("GET", &format!("/v1/pull?limit=2{cursor}"), None);
            if response.status != 200 {
                return None;
            }
            let text = String::from_utf8(response.body.to_vec()).unwrap();
            let mut end = None;
            for line in text.lines() {
                match serde_json::from_str(line).unwrap() {
                    PullLine::Page(page) => end = Some((page.cursor.to_string(), page.at_head)),
                    PullLine::Change(change) => match change.kind {
                        ChangeKind::Delete => drop(rows.remove(change.id.as_str())),
                        ChangeKind::Upsert(fields) => {
                            let id = change.id.to_string();
                            rows.insert(id, fields.get("title").unwrap().clone());
                        }
                    },
                }
            }
            let (next, at_head) = end.expect("a page has an end");
            if at_head {
                let all: Vec<String> = rows.iter().map(in_short).collect();
                return Some(all.join(" "));
            }
            cursor = format!("&cursor={next}");
        }
    }

    fn purge(&self) -> Result<(), syncline_server::StorageError> {
        let storage = self.service().storage();
        purge(storage, &ServerConfig::default(), self.now()).map(drop)
    }

    fn epoch(&self) -> String {
        let epoch = self.service().storage().read(|tx| tx.epoch());
        epoch.unwrap().as_str().to_owned()
    }

    fn head(&self) -> i64 {
        let head = self
            .service()
            .storage()
            .read(|tx| tx.head("acme", &"default".into()));
        head.unwrap()
    }
}

fn in_short((id, title): (&String, &Value)) -> String {
    match title {
        Value::Text(title) => format!("{id}={title}"),
        other => panic!("a title is {other:?}"),
    }
}

impl Scene for Server {
    fn faults(&self) -> &Faults {
        &self.faults
    }

    fn work(&mut self) {
        self.acknowledged = match self.work {
            Work::Push => self.push(1),
            Work::Pull => {
                let listed = self.listing();
                assert!(listed.as_deref().is_none_or(|rows| rows == EXPECTED));
                listed.is_some()
            }
            Work::Purge => self.purge().is_ok(),
            Work::NewHistory => match rotate_epoch(self.service().storage(), self.now()) {
                Ok(epoch) => {
                    self.epochs.push(epoch.as_str().to_owned());
                    true
                }
                Err(_) => false,
            },
            Work::Restart => self.start().is_ok(),
        };
    }

    fn crash(&mut self) {
        self.service = None;
    }

    fn replace(&mut self, folder: &Path) {
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("server.db{suffix}");
            let _ = std::fs::remove_file(self.folder.path().join(&name));
            let found = folder.join(&name);
            if found.exists() {
                std::fs::copy(found, self.folder.path().join(&name)).unwrap();
            }
        }
    }

    fn judge(&mut self) {
        if self.service.is_none() {
            self.start().unwrap();
        }
        let epoch = self.epoch();
        let last = self.epochs.last().unwrap();
        let may_differ = self.work == Work::NewHistory && !self.acknowledged;
        assert!(epoch == *last || may_differ, "the epoch went back");
        if self.work == Work::Purge {
            let rows = self.listing().expect("nothing fails any more");
            assert_eq!(rows, EXPECTED, "purging touches no rows");
            self.purge().unwrap();
            assert_eq!(self.head(), EFFECTS);
            return;
        }
        // The same batches again: what was done is told, what was not is done.
        assert!(self.push(0) && self.push(1), "nothing fails any more");
        assert_eq!(self.listing().as_deref(), Some(EXPECTED));
        assert_eq!(self.head(), EFFECTS, "effects");
        let check = rusqlite::Connection::open(self.folder.path().join("server.db"))
            .unwrap()
            .query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        assert_eq!(check.unwrap(), "ok");
    }
}
