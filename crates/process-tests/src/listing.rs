//! What the server has, read over HTTP as any client reads it.

use crate::rows::Rows;
use syncline::{HttpRemote, Remote, RemoteAnswer, RemoteRequest, TokenSource};
use syncline_core::PageChange;
use syncline_protocol::{ChangeKind, ClientId, Scope};

/// Every live entity of the server: its type and id, and its fields.
pub fn listing(url: &str, token: &str) -> Rows {
    let remote = HttpRemote::builder(url)
        .token(TokenSource::Static(token.to_owned()))
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut found = Rows::new();
    let mut cursor = None;
    for _ in 0..10_000 {
        let request = RemoteRequest::Pull {
            client: ClientId::new("f".repeat(32)),
            scope: Scope::from("default"),
            cursor: cursor.take(),
            limit: 1000,
            bytes: None,
        };
        let RemoteAnswer::Pull(Ok(page)) = runtime.block_on(remote.send(request)) else {
            panic!("the server does not list what it has");
        };
        for change in page.changes {
            let PageChange::Valid(change) = change else {
                panic!("the server lists {change:?}");
            };
            let name = (
                change.entity_type.as_str().to_owned(),
                change.id.to_string(),
            );
            match change.kind {
                ChangeKind::Upsert(fields) => found.insert(name, fields),
                ChangeKind::Delete => found.remove(&name),
            };
        }
        if page.end.at_head {
            return found;
        }
        cursor = Some(page.end.cursor);
    }
    panic!("the server's feed has no head")
}
