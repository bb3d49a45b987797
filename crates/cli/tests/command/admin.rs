//! `admin` as an operator meets it: beside a stopped server only.

use crate::harness::{Home, Server, run, syncline, with_token};

#[test]
fn a_restored_server_gets_a_new_history_and_devices_follow() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached("a.db", "INSERT INTO project VALUES ('p', 'x')", &server.url);
    with_token(&server, &["sync", &a]).expect_code(0);
    let data = server.data.to_str().unwrap().to_owned();
    let rotate = ["admin", "rotate-epoch", "--data", &data, "--json"];
    let ran = run(syncline(&rotate)).expect_code(1);
    assert_eq!(ran.json()["error"]["code"], "data-in-use");
    let (address, token) = (server.address().to_owned(), server.token.clone());
    server.stop("TERM").expect_code(0);
    let first = run(syncline(&rotate)).expect_code(0).json()["epoch"].clone();
    let second = run(syncline(&rotate)).expect_code(0).json()["epoch"].clone();
    assert_ne!(first, second);
    let mut server = Server::start_with(home.folder.path(), &address, &[]);
    server.token = token;
    with_token(&server, &["sync", &a]).expect_code(0);
}

#[test]
fn what_is_young_is_not_forgotten() {
    let home = Home::new();
    let server = Server::start(home.folder.path());
    let a = home.attached("a.db", "INSERT INTO project VALUES ('p', 'x')", &server.url);
    with_token(&server, &["sync", &a]).expect_code(0);
    let data = server.data.to_str().unwrap().to_owned();
    server.stop("TERM").expect_code(0);
    let purge = ["admin", "purge", "--data", &data, "--json"];
    assert_eq!(run(syncline(&purge)).expect_code(0).json()["keys"], 0);
    let config = home.path("server.toml").to_str().unwrap().to_owned();
    std::fs::write(&config, "key_retention_days = 0\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2)); // a key is older than now
    let now = [
        "admin", "purge", "--data", &data, "--config", &config, "--json",
    ];
    assert_eq!(run(syncline(&now)).expect_code(0).json()["keys"], 1);
    let nowhere = home.path("nowhere").to_str().unwrap().to_owned();
    let ran = run(syncline(&["admin", "purge", "--data", &nowhere, "--json"])).expect_code(1);
    assert_eq!(ran.json()["error"]["code"], "data-directory");
    assert!(!std::path::Path::new(&nowhere).exists());
}
