//! The file, its documentation and its schema say the same.

use super::*;
use serde_json::{Value, json};
use syncline_core::{
    Bound, Config, DeleteRule, DeleteRules, FieldRule, Policy, TimeUnit, Timestamp,
};
use syncline_store::IdMode;

const GUIDE: &str = include_str!("../../../../docs/howto/configure.md");
const SCHEMA: &str = include_str!("../../../../docs/schema/syncline.schema.json");

fn example() -> &'static str {
    let (_, rest) = GUIDE.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0
}

fn parse(text: &str) -> Result<ConfigFile, ConfigError> {
    ConfigFile::parse(text, "/etc/app/syncline.toml")
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn is_valid(text: &str) -> bool {
    let instance: Value = toml::from_str(text).unwrap();
    jsonschema::validator_for(&schema())
        .unwrap()
        .is_valid(&instance)
}

#[test]
fn the_example_of_the_guide_is_complete_and_shows_the_defaults() {
    let config = parse(example()).unwrap();
    assert!(is_valid(example()));
    for setting in SETTINGS {
        let shown = config.settings.get(setting.key);
        assert!(shown.is_some(), "{} is not in the guide", setting.key);
    }
    for key in keys::REMOTE.iter().chain(keys::TYPE) {
        assert!(example().contains(key), "{key} is not in the guide");
    }
    let defaults = Settings::default();
    assert_eq!(config.settings.config(), Config::default());
    assert_eq!(config.settings.live(), defaults.live());
    assert_eq!(config.settings.retention(), defaults.retention());
    assert_eq!(config.settings.outbox_rows(), defaults.outbox_rows());
    assert_eq!(
        config.settings.busy_timeout_ms(),
        defaults.busy_timeout_ms()
    );
    let mut checkpoint = config.settings.clone();
    checkpoint.set("pull", 1).unwrap();
    let mut default = Settings::default();
    default.set_pull_mode(syncline_store::PullMode::Checkpoint);
    assert_eq!(checkpoint.checkpoint(), default.checkpoint());
    assert_eq!(config.settings.checkpoint(), None);
    let Some(ConfiguredToken::File(file)) = &config.token else {
        panic!("{config:?}");
    };
    assert_eq!(file, Path::new("/etc/app/token"));
    let task = &config.types["tasks"];
    assert_eq!(
        (task.name.as_str(), task.rules.policy),
        ("task", Policy::FieldMerge)
    );
    assert_eq!(task.options.id_mode, Some(IdMode::Client));
    assert_eq!(task.options.fields["title"], "name");
    assert_eq!(task.options.references[0].table, "person");
    assert_eq!(config.types["person"].options, TypeOptions::default());
}

#[test]
fn the_guide_tells_the_defaults_of_the_remote() {
    let (config, remote) = (
        parse(example()).unwrap(),
        format!("{:?}", crate::HttpRemote::builder("http://[::1]")),
    );
    for (setting, shown) in [
        ("connect_timeout_ms", "connect_timeout: 10s"),
        ("request_timeout_ms", "request_timeout: 30s"),
        ("progress_timeout_ms", "progress_timeout: 15s"),
        ("live_silence_ms", "live_silence: 60s"),
        ("max_response_bytes", "max_response_bytes: 67108864"),
        ("compress_above_bytes", "compress_above: 1024"),
    ] {
        let value = config.settings.get(setting).unwrap().to_string();
        assert!(remote.contains(shown), "{shown} in {remote}");
        let digits: String = shown.chars().filter(char::is_ascii_digit).collect();
        assert!(value.starts_with(&digits), "{setting}: {value}, {shown}");
    }
}

/// Two show nowhere: tests/settings.rs looks at what is waited for with them.
#[test]
fn every_number_of_the_remote_arrives_where_it_belongs() {
    let shown = [
        ("request_timeout_ms", "request_timeout: 2.001s"),
        ("progress_timeout_ms", "progress_timeout: 2.002s"),
        ("live_silence_ms", "live_silence: 2.003s"),
        ("max_response_bytes", "max_response_bytes: 2004"),
        ("compress_above_bytes", "compress_above: 2005"),
    ];
    let mut settings = Settings::default();
    for (value, (key, _)) in (2_001..).zip(shown) {
        settings.set(key, value).unwrap();
    }
    let builder = crate::Syncline::builder("app.db");
    let remote = builder.http_remote("http://[::1]".to_owned(), &settings);
    let remote = format!("{:?}", remote.unwrap());
    for (key, shown) in shown {
        assert!(remote.contains(shown), "{key}: {shown} in {remote}");
    }
    let of_remote = SETTINGS.iter().filter(|one| one.section == Section::Remote);
    assert_eq!(of_remote.count(), shown.len() + 2);
}

#[test]
fn the_schema_has_every_key_with_its_bounds_and_no_other() {
    let schema = schema();
    let names = |pointer: &str| -> Vec<String> {
        let object = schema.pointer(pointer).unwrap().as_object().unwrap();
        object.keys().cloned().collect()
    };
    let sorted = |keys: &[&str]| -> Vec<String> {
        let mut keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        keys.sort();
        keys
    };
    let types = "/properties/types/additionalProperties/properties";
    assert_eq!(names("/properties"), sorted(keys::ROOT));
    assert_eq!(
        names("/properties/remote/properties"),
        sorted(&keys::remote())
    );
    assert_eq!(names("/properties/sync/properties"), sorted(&keys::sync()));
    assert_eq!(names(types), sorted(keys::TYPE));
    let references = format!("{types}/references/items/properties");
    assert_eq!(names(&references), sorted(keys::REFERENCE));
    let words = |key: &str| {
        schema
            .pointer(&format!("{types}/{key}/enum"))
            .unwrap()
            .clone()
    };
    rules_of_the_schema(&schema.pointer(types).unwrap().clone());
    assert_eq!(words("policy"), words_of(Policy::WORDS));
    assert_eq!(words("lane"), json!(keys::LANES.map(|(word, _)| word)));
    assert_eq!(words("id"), json!(keys::ID_MODES.map(|(word, _)| word)));
    let applying = words("triggers/additionalProperties");
    assert_eq!(applying, json!(keys::APPLYING.map(|(word, _)| word)));
    let shown = parse(example()).unwrap();
    for setting in SETTINGS {
        let section = match setting.section {
            Section::Remote => "remote",
            Section::Sync => "sync",
        };
        let one = &schema["properties"][section]["properties"][setting.key];
        if !setting.words.is_empty() {
            assert_eq!(one["enum"], json!(setting.words), "{}", setting.key);
            assert_eq!(one["default"], json!(setting.words[0]), "{}", setting.key);
            continue;
        }
        assert_eq!(one["minimum"], json!(setting.least), "{}", setting.key);
        assert_eq!(one["maximum"], json!(setting.most), "{}", setting.key);
        assert_eq!(
            one["default"],
            json!(shown.settings.get(setting.key)),
            "{}",
            setting.key
        );
    }
}

fn words_of<T>(words: &[(&str, T)]) -> Value {
    words.iter().map(|(word, _)| *word).collect()
}

/// Keys and words of conflict rules are those of the core.
fn rules_of_the_schema(types: &Value) {
    let keys = |pointer: &str| -> Vec<String> {
        let object = types.pointer(pointer).unwrap().as_object().unwrap();
        object.keys().cloned().collect()
    };
    let sorted = |keys: &[&str]| {
        let mut keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        keys.sort();
        keys
    };
    let rule = &types["merge"]["additionalProperties"]["enum"];
    assert_eq!(*rule, words_of(FieldRule::WORDS));
    let deletes = &types["deletes"]["oneOf"];
    assert_eq!(deletes[0]["enum"], words_of(DeleteRule::WORDS));
    assert_eq!(keys("/deletes/oneOf/1/properties"), sorted(keys::DELETES));
    for direction in keys::DELETES {
        let words = &deletes[1]["properties"][direction]["enum"];
        assert_eq!(*words, words_of(DeleteRule::WORDS));
    }
    let full = "/timestamp/oneOf/1/properties";
    assert_eq!(keys(full), sorted(keys::TIMESTAMP));
    let units = types.pointer(&format!("{full}/unit/enum")).unwrap();
    assert_eq!(*units, words_of(TimeUnit::WORDS));
    assert_eq!(
        keys("/invariants/items/properties"),
        sorted(keys::INVARIANT)
    );
}

#[test]
fn the_guide_shows_every_conflict_rule() {
    let config = parse(example()).unwrap();
    let task = &config.types["tasks"].rules;
    let both = Some(DeleteRule::DeleteWins);
    let (here, there) = (both, both);
    assert_eq!(task.deletes, DeleteRules { here, there });
    assert_eq!(task.natural_key.len(), 2);
    assert_eq!(task.merge["title"], FieldRule::Theirs);
    for (word, _) in FieldRule::WORDS {
        assert!(example().contains(word), "{word} is not in the guide");
    }
    let [stock] = task.invariants.as_slice() else {
        panic!("{task:?}");
    };
    assert_eq!(stock.sum, ["estimate"]);
    let zero = syncline_protocol::Value::Integer(0);
    assert_eq!(stock.min, Some(Bound::Number(zero)));
    let reading = &config.types["reading"].rules;
    let seconds = Timestamp {
        field: "taken_at".to_owned(),
        unit: TimeUnit::Seconds,
    };
    assert_eq!(reading.timestamp, Some(seconds));
    assert_eq!(reading.deletes.here, Some(DeleteRule::Manual));
    assert_eq!(reading.deletes.there, Some(DeleteRule::EditWins));
}

/// The rules of a type can be written in the file as they are in a fixture or in the store.
#[test]
fn the_words_of_the_file_are_those_of_the_rules_themselves() {
    let text = "[types.a]
        policy = 'field-merge'
        merge = { n = 'counter', tags = 'text-words' }
        deletes = { there = 'edit-wins' }
        natural_key = ['a', 'b']
        invariants = [{ name = 'sum', sum = ['a', 'b'], min = -1.5, max = 'limit' }]";
    assert!(is_valid(text));
    let told: Value = toml::from_str(text).unwrap();
    let itself: ConflictRules = serde_json::from_value(told["types"]["a"].clone()).unwrap();
    assert_eq!(parse(text).unwrap().types["a"].rules, itself);
    let short = parse("[types.a]\npolicy='last-writer-wins'\ntimestamp='at'").unwrap();
    let timestamp = short.types["a"].rules.timestamp.clone().unwrap();
    assert_eq!(timestamp.unit, TimeUnit::Milliseconds);
}

/// Text, line, key, and words of the message.
type Wrong = (&'static str, usize, &'static str, &'static str);

#[rustfmt::skip]
const WRONG: &[Wrong] = &[
        (
            "[sync]\ndebounce = 1",
            2,
            "sync.debounce",
            "did you mean debounce_ms?",
        ),
        (
            "[sync]\n\nmax_atempts = 1",
            3,
            "sync.max_atempts",
            "did you mean max_attempts?",
        ),
        ("[sinc]", 1, "sinc", "did you mean sync?"),
        (
            "[zzzzzzzz]",
            1,
            "zzzzzzzz",
            "the keys here are: remote, sync, types",
        ),
        ("x = 1\n[sync]", 1, "x", "there is no such key"),
        (
            "[remote]\nrest = \"a.toml\"",
            2,
            "remote.rest",
            "there is no such key",
        ),
        (
            "[types.a]\nrules = {}",
            2,
            "types.a.rules",
            "there is no such key",
        ),
        (
            "[types.a]\npolcy = 'x'",
            2,
            "types.a.polcy",
            "did you mean policy?",
        ),
        (
            "[types.a]\npolicy = 'server_wins'",
            2,
            "types.a.policy",
            "did you mean server-wins?",
        ),
        (
            "[types.a]\n[types.a.merge]\nn = 'count'",
            3,
            "types.a.merge.n",
            "did you mean counter?",
        ),
        (
            "[types.a]\npolicy = 'manual'\n[types.a.merge]\n\nn = 'max'",
            5,
            "types.a.merge.n",
            "the policy is manual",
        ),
        (
            "[types.a]\n\ntimestamp = 'at'",
            3,
            "types.a.timestamp",
            "the policy is field-merge",
        ),
        (
            "[types.a]\npolicy = 'last-writer-wins'\ntimestamp = {unit = 's'}",
            3,
            "types.a.timestamp.field",
            "missing",
        ),
        (
            "[types.a]\ntimestamp = 3",
            2,
            "types.a.timestamp",
            "the name of a column, or a table",
        ),
        (
            "[types.a]\ndeletes = 'delete_wins'",
            2,
            "types.a.deletes",
            "did you mean delete-wins?",
        ),
        (
            "[types.a]\ndeletes = {hear = 'manual'}",
            2,
            "types.a.deletes.hear",
            "did you mean here?",
        ),
        (
            "[types.a]\nnatural_key = []",
            2,
            "types.a.natural_key",
            "names no column",
        ),
        (
            "[types.a]\n[[types.a.invariants]]\nname = 'x'\nmin = 0",
            2,
            "types.a.invariants.field",
            "missing",
        ),
        (
            "[types.a]\n[[types.a.invariants]]\nname = 'x'\nfield = 'a'",
            2,
            "types.a.invariants.x",
            "neither min nor max",
        ),
        (
            "[types.a]\n[[types.a.invariants]]\nname = 'x'\nfield = 'a'\nmin = true",
            5,
            "types.a.invariants.min",
            "a number or the name of a column",
        ),
        (
            "[types.a]\n[[types.a.invariants]]\nname='x'\nfield='a'\nsum=['b']\nmin=0",
            4,
            "types.a.invariants.field",
            "a sum as well",
        ),
        (
            "[types.a]\nlane = 3",
            2,
            "types.a.lane",
            "must be a string, not an integer",
        ),
        (
            "[types.a]\nleave_out = 'x'",
            2,
            "types.a.leave_out",
            "an array of strings",
        ),
        (
            "[types.a]\nreferences = [{columns=['x']}]",
            2,
            "types.a.references.table",
            "missing",
        ),
        (
            "[types.a]\n[types.a.fields]\nx = 1",
            3,
            "types.a.fields.x",
            "must be a string",
        ),
        (
            "[types.a]\ntriggers = { x = 'hold' }",
            2,
            "types.a.triggers.x",
            "did you mean held?",
        ),
        (
            "[types.a]\n[types.b]\ntable = 'a'",
            3,
            "types.b.table",
            "another type",
        ),
        ("types = 1", 1, "types", "must be a table"),
        (
            "[sync]\nrounds = 0",
            2,
            "sync.rounds",
            "0 is out of range: 1 to 1000",
        ),
        (
            "[sync]\nlive = true",
            2,
            "sync.live",
            "must be a string, not a boolean",
        ),
        ("[sync]\nlive = 'of'", 2, "sync.live", "did you mean off?"),
        ("[sync]\nrounds = -1", 2, "sync.rounds", "not negative"),
        ("[sync]\nrounds = 1.5", 2, "sync.rounds", "not a float"),
        ("[remote]\nurl = ''", 2, "remote.url", "must not be empty"),
        (
            "[remote]\ntoken_command = []",
            2,
            "remote.token_command",
            "names no program",
        ),
        (
            "[remote]\ntoken_file='a'\ntoken_command=['b']",
            3,
            "remote.token_command",
            "as well",
        ),
        ("[sync]\nrounds = \n", 2, "", ""),
        ("[sync]\nrounds = 1\nrounds = 2", 3, "", "duplicate"),
];

#[test]
fn what_is_wrong_is_named_with_line_key_and_mend() {
    for (text, line, key, words) in WRONG.iter().copied() {
        let error = parse(text).unwrap_err();
        assert_eq!(
            (error.line, error.key.as_str()),
            (Some(line), key),
            "{text}: {error}"
        );
        let told = error.to_string();
        assert!(told.contains(words), "{text}: {told}");
        assert!(
            told.starts_with(&format!("/etc/app/syncline.toml:{line}: ")),
            "{told}"
        );
        if !key.is_empty() && !words.contains("another type") {
            assert!(!is_valid(text), "the schema takes {text}");
        }
    }
    let missing = ConfigFile::read("/no/such/file.toml").unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("/no/such/file.toml: it cannot be read: ")
    );
}

#[test]
fn an_empty_file_says_nothing() {
    assert_eq!(parse("").unwrap(), ConfigFile::default());
    let command = parse("remote.token_command = ['pass', 'canary']").unwrap();
    assert!(!format!("{command:?}").contains("canary"));
}
