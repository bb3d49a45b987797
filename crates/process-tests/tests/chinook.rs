//! The sample database, synced by the real `syncline` command to a real `syncline serve` process:
//! uploaded, copied to a second file, edited offline on both through another language's SQLite,
//! merged; and a server that is killed in the middle of pushes.

// A test that cannot go on has failed; the panic says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "chinook/edits.rs"]
mod edits;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_process_tests::{
    Act, Ended, PATIENCE, Proxy, Rows, Running, Seen, Server, Tool, assert_same, assert_settled,
    copy_schema, listing, number, python, rows, sample_database,
};
use tempfile::TempDir;

/// `sync` ends with this when the server cannot be reached; work is kept.
const UNREACHABLE: Option<i32> = Some(11);

struct Shop {
    folder: TempDir,
    tool: Tool,
    token: String,
    server: Arc<Mutex<Server>>,
    proxy: Proxy,
}

impl Shop {
    /// A server, a device with the sample's rows and one with its schema only; both attached.
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut tool = Tool::find();
        let data = folder.path().join("data");
        let serve = {
            let (tool, data) = (tool.clone(), data.clone());
            move |listen: &str| {
                let mut command = tool.command(None, "serve", "");
                command.arg("--data").arg(&data).args(["--listen", listen]);
                command
            }
        };
        let server = Server::start(serve);
        let mut command = tool.command(None, "token", "--subject shop");
        let issued = Running::start(command.arg("--data").arg(&data)).wait(PATIENCE);
        let token = issued.success().output().trim().to_owned();
        tool.set_token(&token);
        let proxy = Proxy::start(server.address());
        let shop = Self {
            folder,
            tool,
            token,
            server: Arc::new(Mutex::new(server)),
            proxy,
        };
        let (north, south) = (shop.path("north.db"), shop.path("south.db"));
        sample_database(&north);
        copy_schema(&north, &south);
        for path in [&north, &south] {
            let options = format!("--remote {} --all --existing upload", shop.proxy.url());
            shop.tool.run(path, "attach", &options).success();
        }
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn try_sync(&self, name: &str) -> Ended {
        self.tool.run(&self.path(name), "sync", "--budget 50s")
    }

    #[track_caller]
    fn sync(&self, name: &str) {
        self.try_sync(name).success();
    }

    fn sync_both_twice(&self) {
        for _ in 0..2 {
            self.sync("north.db");
            self.sync("south.db");
        }
    }

    /// Both files and the server's listing have the same rows, which are returned.
    #[track_caller]
    fn assert_equal(&self, context: &str) -> Rows {
        let url = self.server.lock().unwrap().url();
        let listed = listing(&url, &self.token);
        for name in ["north.db", "south.db"] {
            let own = rows(&self.path(name));
            assert_same(context, (name, &own), ("the server", &listed));
            assert_settled(context, &self.path(name));
        }
        listed
    }

    fn server_database(&self) -> PathBuf {
        self.path("data/server.db")
    }

    /// Mutations that have taken effect on the server since its beginning.
    fn effects(&self) -> i64 {
        number(&self.server_database(), "SELECT sum(head) FROM head")
    }

    /// Keys of which the server has recorded what became of them: one each, if none was used twice
    /// and no answer had to be replaced by a conflict.
    fn keys(&self) -> i64 {
        number(&self.server_database(), "SELECT count(*) FROM outcome")
    }

    fn recorded(&self, name: &str) -> i64 {
        number(&self.path(name), "SELECT count(*) FROM syncline_outbox")
    }

    /// Kills the server at the next push.
    fn kill_at_next_push(&self, moment: Moment) {
        let server = Arc::clone(&self.server);
        let mut kill = Some(move || server.lock().unwrap().kill());
        self.proxy.rule(move |request: &Seen<'_>| {
            let Some(kill) = kill.take_if(|_| request.is_push()) else {
                return Act::Pass;
            };
            match moment {
                Moment::After(pause) => Act::Then(Box::new(move || {
                    std::thread::sleep(pause);
                    kill();
                })),
                Moment::Answered => Act::LoseAnswer(Box::new(kill)),
            }
        });
    }
}

/// When the server dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// This long after the push was sent to it.
    After(Duration),
    /// When it has answered; nobody gets the answer.
    Answered,
}

#[test]
fn a_real_database_is_synced_edited_merged_and_survives_a_killed_server() {
    let shop = Shop::open();
    let before = uploaded_and_pulled(&shop);
    python(&shop.path("north.db"), edits::NORTH);
    python(&shop.path("south.db"), edits::SOUTH);
    shop.sync_both_twice();
    let merged = shop.assert_equal("after offline edits on both sides");
    edits::assert_merged(&before, &merged);

    bad_answers(&shop);
    killed_servers(&shop);
    shop.sync("south.db");
    shop.assert_equal("in the end");
}

fn uploaded_and_pulled(shop: &Shop) -> Rows {
    let before = rows(&shop.path("north.db"));
    let uploads = i64::try_from(before.len()).unwrap();
    assert_eq!(shop.recorded("north.db"), uploads);
    shop.sync("north.db");
    shop.sync("south.db");
    let all = shop.assert_equal("after the upload");
    assert_same("the upload", ("the server", &all), ("the sample", &before));
    let tables: BTreeSet<&str> = all.keys().map(|(table, _)| table.as_str()).collect();
    assert_eq!(tables.len(), 11, "{tables:?}");
    assert_eq!(shop.effects(), uploads, "each row was created once");
    before
}

/// The server lives; answers are lost, or a proxy sends each push twice.
fn bad_answers(shop: &Shop) {
    for (round, kind) in ["lost", "repeated"].into_iter().enumerate() {
        let (effects, keys) = (shop.effects(), shop.keys());
        python(&shop.path("south.db"), &edits::round("south", round));
        assert_eq!(shop.recorded("south.db"), edits::PER_ROUND);
        let mut left = 2;
        shop.proxy.rule(move |request| {
            if !request.is_push() || left == 0 {
                return Act::Pass;
            }
            left -= 1;
            match kind {
                "lost" => Act::LoseAnswer(Box::new(|| ())),
                _ => Act::Repeat,
            }
        });
        let lost = (0..5).take_while(|_| shop.try_sync("south.db").status.code() == UNREACHABLE);
        assert_eq!(
            lost.count(),
            if kind == "lost" { 2 } else { 0 },
            "answers {kind}"
        );
        assert_settled(kind, &shop.path("south.db"));
        assert_eq!(shop.effects() - effects, edits::PER_ROUND, "answers {kind}");
        assert_eq!(shop.keys() - keys, edits::PER_ROUND, "answers {kind}: keys");
    }
    shop.proxy.pass();
    shop.sync("north.db");
}

/// The server dies in the middle of a push, at moments from "hardly sent" to "just answered".
fn killed_servers(shop: &Shop) {
    let whole = shop.proxy.take_traffic().slowest;
    let part = |percent: u32| Moment::After(whole * percent / 100);
    let moments = [part(0), part(40), part(70), part(90), Moment::Answered];
    for (round, moment) in (2..).zip(moments) {
        let context = format!("killed {moment:?} of {whole:?}");
        let (effects, keys) = (shop.effects(), shop.keys());
        python(&shop.path("north.db"), &edits::round("north", round));
        let recorded = shop.recorded("north.db");
        assert_eq!(recorded, edits::PER_ROUND);
        shop.kill_at_next_push(moment);
        let ended = shop.try_sync("north.db");
        if ended.status.success() && moment != Moment::Answered {
            println!("{context}: the answer was faster this time");
        } else {
            assert_eq!(ended.status.code(), UNREACHABLE, "{context}: {ended:?}");
        }
        shop.server.lock().unwrap().restart();
        let survived = shop.effects() - effects;
        println!("{context}: {survived} of {recorded} had taken effect");
        if moment == Moment::Answered {
            assert!(survived > 0, "{context}: what was answered is kept");
        }
        shop.proxy.pass();
        shop.sync("north.db");
        assert_eq!(shop.effects() - effects, recorded, "{context}: effects");
        assert_eq!(shop.keys() - keys, recorded, "{context}: keys");
        assert_settled(&context, &shop.path("north.db"));
    }
}
