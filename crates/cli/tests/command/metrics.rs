//! Metrics: what the code tells, what the documents say, and what a known exchange comes to.

use crate::harness::{
    Home, Running, Server, get, metrics_address, run, sql, syncline, until, with_token,
};
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

const TABLE: &str = include_str!("../../../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../../../docs/grafana/syncline.json");

/// A metric as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Metric {
    kind: String,
    unit: String,
    meaning: String,
    labels: BTreeSet<String>,
}

fn table() -> BTreeMap<String, Metric> {
    let rows = TABLE
        .lines()
        .filter(|line| line.starts_with("| `syncline_"));
    let cells = rows.map(|row| row.split(" | ").map(str::trim).collect::<Vec<_>>());
    cells
        .filter(|cells| cells.len() == 5)
        .map(|cells| {
            let plain = |cell: &str| cell.trim_matches(['|', ' ', '`']).to_owned();
            let labels = cells[2].split(", ").map(plain);
            let metric = Metric {
                kind: plain(cells[1]),
                unit: plain(cells[3]),
                meaning: cells[4].trim_end_matches('|').trim().to_owned(),
                labels: labels.filter(|label| !label.is_empty()).collect(),
            };
            (plain(cells[0]), metric)
        })
        .collect()
}

/// Takes down what is described.
#[derive(Default)]
struct Described(Mutex<BTreeMap<String, Metric>>);

impl Described {
    fn note(&self, kind: &str, name: &KeyName, unit: Option<Unit>, meaning: &SharedString) {
        let metric = Metric {
            kind: kind.to_owned(),
            unit: unit.unwrap().as_str().to_owned(),
            meaning: meaning.to_string(),
            labels: BTreeSet::new(),
        };
        let before = self
            .0
            .lock()
            .unwrap()
            .insert(name.as_str().to_owned(), metric);
        assert_eq!(before, None, "{name:?} is described twice");
    }
}

impl Recorder for Described {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.note("counter", &name, unit, &meaning);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.note("gauge", &name, unit, &meaning);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.note("histogram", &name, unit, &meaning);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn the_table_says_what_the_code_says() {
    let described = Described::default();
    with_local_recorder(&described, || {
        syncline::describe_metrics();
        syncline_server::describe_metrics();
    });
    let described = described.0.into_inner().unwrap();
    let mut table = table();
    table.values_mut().for_each(|metric| metric.labels.clear());
    let names = |metrics: &BTreeMap<String, Metric>| metrics.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&table), names(&described));
    for (name, metric) in &described {
        assert_eq!(&table[name], metric, "{name}");
    }
}

/// A name without what a histogram adds to it.
fn family(name: &str) -> &str {
    let ends = ["_bucket", "_sum", "_count"];
    let stripped = ends.iter().find_map(|end| name.strip_suffix(end));
    match stripped.filter(|family| !family.is_empty()) {
        Some(family)
            if table()
                .get(family)
                .is_some_and(|one| one.kind == "histogram") =>
        {
            family
        }
        _ => name,
    }
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| match value {
            Value::String(text) if name == "expr" || name == "query" => found.push(text.clone()),
            value => expressions(value, found),
        }),
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_every_metric_and_for_no_other() {
    let mut found = Vec::new();
    expressions(&serde_json::from_str(DASHBOARD).unwrap(), &mut found);
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let asked: BTreeSet<&str> = found
        .iter()
        .flat_map(|text| text.split(word))
        .filter(|word| word.starts_with("syncline_"))
        .map(family)
        .collect();
    let table = table();
    let known: BTreeSet<&str> = table.keys().map(String::as_str).collect();
    assert_eq!(asked, known);
}

/// One scrape: series as they are written, to their values.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    fn of(address: &str) -> Self {
        let answer = get(address, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        let read = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        };
        Self(samples.map(read).collect())
    }

    fn value(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or_default()
    }

    #[track_caller]
    fn expect(&self, series: &str, value: f64) {
        assert_eq!(
            self.0.get(series),
            Some(&value),
            "{series} in {:#?}",
            self.0
        );
    }

    #[track_caller]
    fn expect_some(&self, series: &str) {
        assert!(self.value(series) > 0.0, "{series} in {:#?}", self.0);
    }

    /// Every series is one of the table, with the labels that it has there.
    fn assert_documented(&self) {
        let table = table();
        for series in self.0.keys() {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let metric = table.get(family(name));
            let metric = metric.unwrap_or_else(|| panic!("{name} is in no table"));
            let pairs = labels.trim_end_matches('}').split(',');
            let labels = pairs.filter_map(|pair| pair.split_once('='));
            let mut labels: BTreeSet<String> = labels.map(|(name, _)| name.to_owned()).collect();
            labels.remove("le");
            assert_eq!(labels, metric.labels, "{series}");
        }
    }
}

#[test]
fn both_sides_tell_what_an_exchange_came_to() {
    let home = Home::new();
    let metrics = ["--metrics", "127.0.0.1:0"];
    let mut server = Server::start_with(home.folder.path(), "127.0.0.1:0", &metrics);
    let there = server.metrics();
    let rows = "INSERT INTO task VALUES ('t1', 'milk', 0, NULL), ('t2', 'tea', 0, NULL);
                INSERT INTO project VALUES ('p', 'x')";
    let db = home.attached("a.db", rows, &server.url);
    let mut command = syncline(&[&["run", &db], &metrics[..]].concat());
    command.env("SYNCLINE_TOKEN", &server.token);
    let (running, mut stdout) = Running::start_reading(command);
    let here = metrics_address(&mut stdout);
    let wait = Duration::from_secs(30);
    until("a live stream after the first cycle", wait, || {
        Scrape::of(&there).value("syncline_server_live_streams") == 1.0
    });

    let device = Scrape::of(&here);
    device.assert_documented();
    for (series, value) in [
        ("syncline_mutations_total{outcome=\"applied\"}", 3.0),
        ("syncline_claimed_mutations_total", 3.0),
        ("syncline_outbox_entries{state=\"pending\"}", 0.0),
        ("syncline_outbox_entries{state=\"dead\"}", 0.0),
        ("syncline_oldest_pending_age_seconds", 0.0),
        ("syncline_open_conflicts", 0.0),
        (
            "syncline_request_duration_seconds_count{kind=\"hello\",outcome=\"ok\"}",
            1.0,
        ),
        ("syncline_lease_changes_total{to=\"own\"}", 1.0),
        ("syncline_engine_state{state=\"stopped\"}", 0.0),
    ] {
        device.expect(series, value);
    }
    for series in [
        "syncline_cycles_total{end=\"complete\"}",
        "syncline_store_duration_seconds_count{work=\"claim\"}",
        "syncline_last_push_timestamp_seconds",
        "syncline_sent_bytes_total",
        "syncline_received_bytes_total",
        "syncline_wal_bytes",
    ] {
        device.expect_some(series);
    }
    let pushes =
        device.value("syncline_request_duration_seconds_count{kind=\"push\",outcome=\"ok\"}");
    let told = Scrape::of(&there);
    told.assert_documented();
    told.expect("syncline_server_mutations_total{outcome=\"applied\"}", 3.0);
    told.expect("syncline_server_feed_positions_total", 3.0);
    told.expect(
        "syncline_server_requests_total{endpoint=\"push\",status=\"200\"}",
        pushes,
    );
    told.expect("syncline_server_requests_in_flight", 0.0);
    told.expect_some("syncline_server_received_bytes_total");

    // A conflict, decided by rule, of one device more.
    let other = home.attached("b.db", "", &server.url);
    with_token(&server, &["sync", &other]).expect_code(0);
    sql(&other, "UPDATE task SET title = 'soy milk' WHERE id = 't1'");
    with_token(&server, &["sync", &other]).expect_code(0);
    until("the other's change", wait, || {
        Scrape::of(&here).value("syncline_changes_total{landed=\"upserted\"}") >= 1.0
    });
    run(syncline(&["sync", &other])).expect_code(12);
    let told = Scrape::of(&there);
    told.expect_some("syncline_server_sent_changes_total{phase=\"snapshot\"}");
    told.expect_some("syncline_server_requests_total{endpoint=\"hello\",status=\"401\"}");
    told.expect("syncline_server_mutations_total{outcome=\"applied\"}", 4.0);

    // Devices do not meet the metrics, and nothing else is told where they are.
    assert!(get(server.address(), "/metrics").starts_with("HTTP/1.1 404"));
    assert!(get(&there, "/v1/hello").starts_with("HTTP/1.1 404"));

    server.stop("TERM").expect_code(0);
    sql(&db, "UPDATE task SET done = 1");
    until("the first back-off", wait, || {
        Scrape::of(&here).value("syncline_backoffs_total{reason=\"unreachable\"}") >= 1.0
    });
    let alone = Scrape::of(&here);
    alone.assert_documented();
    alone.expect_some("syncline_oldest_pending_age_seconds");
    running.signal("TERM");
    running.end().expect_code(0);
}
