//! What an operator can set: declared entity types with their schemas, and limits.
//!
//! Errors name line and key, also for keys that nobody knows, so that a typing mistake never silently means
//! "no schema". Reads files only when asked to load one.

use crate::declared::Declared;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use syncline_protocol::Limits;
use toml::de::DeTable;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The configuration of a [`Service`](crate::Service). The default is open: every entity type is
/// registered when it is first pushed, and nothing is required of its fields.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// When not empty, the only types that are accepted.
    pub types: BTreeMap<String, TypeConfig>,
    /// Sizes beyond which requests and mutations are refused.
    pub limits: Limits,
    /// How long an idempotency key is remembered at least, in milliseconds.
    pub key_retention_ms: i64,
    /// How long a deletion is remembered at least, in milliseconds.
    pub tombstone_retention_ms: i64,
}

/// A declared entity type.
#[derive(Debug, Clone, Default)]
pub struct TypeConfig {
    /// JSON Schema of the entity's fields as an object.
    pub schema: Option<serde_json::Value>,
    /// Who chooses the ids of created entities.
    pub id: IdAssignment,
    /// Commands that the server carries out, by name.
    pub commands: BTreeMap<String, CommandConfig>,
    /// Fields that are not simply the client's.
    pub fields: BTreeMap<String, FieldConfig>,
    /// Lists of fields that no two entities share, unless one of the fields is NULL.
    pub unique: Vec<Vec<String>>,
    /// Fields that name an entity of another declared type.
    pub references: BTreeMap<String, String>,
}

/// A command as data: sets fields, then adds to fields.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// JSON Schema of the arguments as an object.
    pub args: Option<serde_json::Value>,
    /// Field to `"$argument"` or a literal.
    #[serde(default)]
    pub set: BTreeMap<String, serde_json::Value>,
    /// Field to `"$argument"`, `"-$argument"` or a number. A field that is absent or NULL counts as 0.
    #[serde(default)]
    pub add: BTreeMap<String, serde_json::Value>,
}

/// A field that is not simply the client's.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldConfig {
    /// What the server sets it to with every write, whatever the client says.
    pub set: Option<ServerSet>,
    /// Clients may not set it; commands may.
    #[serde(default)]
    pub read_only: bool,
}

/// What the server sets a field to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerSet {
    /// The time in milliseconds since 1970.
    Now,
    /// The time as RFC 3339 in UTC.
    NowIso,
    /// The subject that wrote.
    Subject,
    /// The entity's version.
    Version,
}

/// Who chooses the id of a created entity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdAssignment {
    /// The client, or the server where the client asks for it.
    #[default]
    Client,
    /// Always the server: the next integer of the type.
    Integer,
    /// Always the server: a UUID of version 7.
    Uuid,
}

/// Why a configuration cannot be used. Correct the file; trying again does not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The TOML is wrong; the message names line and key.
    #[error("{path}: {message}", path = path.display())]
    Toml {
        /// Where.
        path: PathBuf,
        /// What, with line and column.
        message: String,
    },
    /// What is declared for a type makes no sense.
    #[error("{}: {message}", .key.join("."))]
    Type {
        /// Where, beginning with `types` and the type's name.
        key: Vec<String>,
        /// Why.
        message: String,
    },
    /// As the others, in a file.
    #[error("{path}, line {line}: {source}", path = path.display())]
    At {
        /// Which file.
        path: PathBuf,
        /// In which line, from 1.
        line: usize,
        /// What.
        source: Box<ConfigError>,
    },
}

impl ConfigError {
    /// Something that is declared for a type.
    pub(crate) fn of_type(name: &str, key: &[&str], message: impl Into<String>) -> Self {
        let below = ["types", name];
        let key = below.iter().chain(key);
        Self::Type {
            key: key.map(|word| (*word).to_owned()).collect(),
            message: message.into(),
        }
    }

    fn at(self, path: &Path, line: usize) -> Self {
        Self::At {
            path: path.to_owned(),
            line,
            source: Box::new(self),
        }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            types: BTreeMap::new(),
            limits: Limits::default(),
            key_retention_ms: 90 * DAY_MS,
            tombstone_retention_ms: 90 * DAY_MS,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    types: BTreeMap<String, FileType>,
    #[serde(default)]
    limits: FileLimits,
    key_retention_days: Option<u16>,
    tombstone_retention_days: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileType {
    schema: Option<FileSchema>,
    #[serde(default)]
    id: IdAssignment,
    #[serde(default)]
    commands: BTreeMap<String, CommandConfig>,
    #[serde(default)]
    fields: BTreeMap<String, FieldConfig>,
    #[serde(default)]
    unique: Vec<Vec<String>>,
    #[serde(default)]
    references: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FileSchema {
    Path(PathBuf),
    Inline(BTreeMap<String, serde_json::Value>),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FileLimits {
    push_mutations: Option<NonZeroUsize>,
    push_bytes: Option<NonZeroUsize>,
    mutation_bytes: Option<NonZeroUsize>,
    page_changes: Option<NonZeroUsize>,
}

impl ServerConfig {
    /// Reads a TOML file; paths of schemas in it are relative to the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Takes a text for the content of the file at this path.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| ConfigError::Toml {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let defaults = Self::default();
        let mut types = BTreeMap::new();
        for (name, declared) in file.types {
            let config = declared.resolve(&name, directory).map_err(|error| {
                let line = line_of(text, &["types", &name, "schema"]);
                error.at(path, line)
            })?;
            types.insert(name, config);
        }
        Declared::compile(&types).map_err(|error| {
            let line = match &error {
                ConfigError::Type { key, .. } => line_of(text, key),
                _ => 1,
            };
            error.at(path, line)
        })?;
        Ok(Self {
            types,
            limits: file.limits.resolve(),
            key_retention_ms: file
                .key_retention_days
                .map_or(defaults.key_retention_ms, |days| i64::from(days) * DAY_MS),
            tombstone_retention_ms: file
                .tombstone_retention_days
                .map_or(defaults.tombstone_retention_ms, |days| {
                    i64::from(days) * DAY_MS
                }),
        })
    }
}

impl FileType {
    fn resolve(self, name: &str, directory: &Path) -> Result<TypeConfig, ConfigError> {
        let schema = match self.schema {
            None => None,
            Some(FileSchema::Inline(schema)) => Some(schema.into_iter().collect()),
            Some(FileSchema::Path(path)) => Some(read_schema(name, &directory.join(path))?),
        };
        Ok(TypeConfig {
            schema,
            id: self.id,
            commands: self.commands,
            fields: self.fields,
            unique: self.unique,
            references: self.references,
        })
    }
}

fn read_schema(name: &str, path: &Path) -> Result<serde_json::Value, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|error| {
        let message = format!("{} is not JSON: {error}", path.display());
        ConfigError::of_type(name, &["schema"], message)
    })
}

/// The line of a key, or of the innermost table in which it would be.
fn line_of(text: &str, key: &[impl AsRef<str>]) -> usize {
    let Ok(document) = DeTable::parse(text) else {
        return 1;
    };
    let (mut table, mut at) = (Some(document.get_ref()), 0);
    for word in key {
        let Some((key, value)) = table.and_then(|table| table.get_key_value(word.as_ref())) else {
            break;
        };
        at = key.span().start;
        table = value.get_ref().as_table();
    }
    let before = text.as_bytes().iter().take(at);
    1 + before.filter(|byte| **byte == b'\n').count()
}

impl FileLimits {
    fn resolve(self) -> Limits {
        let defaults = Limits::default();
        let or = |given: Option<NonZeroUsize>, default| given.map_or(default, NonZeroUsize::get);
        Limits {
            push_mutations: or(self.push_mutations, defaults.push_mutations),
            push_bytes: or(self.push_bytes, defaults.push_bytes),
            mutation_bytes: or(self.mutation_bytes, defaults.mutation_bytes),
            page_changes: or(self.page_changes, defaults.page_changes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<ServerConfig, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(
            directory.path().join("task.schema.json"),
            r#"{"required":["title"]}"#,
        )
        .unwrap();
        let path = directory.path().join("server.toml");
        std::fs::write(&path, text).unwrap();
        ServerConfig::load(&path)
    }

    #[test]
    fn a_schema_stands_in_a_file_or_inline() {
        let config = load(
            "[types.task]\nschema = \"task.schema.json\"\n[types.note]\n\
             schema = { type = \"object\", required = [\"text\"] }\n[types.free]\n\
             [limits]\npage_changes = 7\n",
        )
        .unwrap();
        let schema = |name: &str| config.types[name].schema.clone();
        assert_eq!(
            schema("task").unwrap()["required"],
            serde_json::json!(["title"])
        );
        assert_eq!(
            schema("note").unwrap()["required"],
            serde_json::json!(["text"])
        );
        assert_eq!(schema("free"), None);
        assert_eq!(config.limits.page_changes, 7);
    }

    #[test]
    fn a_mistake_is_told_with_line_and_key() {
        for (text, line, word) in [
            ("[types.task]\nshema = \"x\"\n", "line 2", "shema"),
            ("[limits]\n\npage = 1\n", "line 3", "page"),
            ("colour = 1\n", "line 1", "colour"),
            ("[limits]\npage_changes = 0\n", "line 2", "page_changes"),
            (
                "[types.task]\nschema = \"absent.json\"\n",
                "line 2",
                "absent.json",
            ),
            (
                "[types.task]\n\nschema = { type = 7 }\n",
                "line 3",
                "types.task.schema: ",
            ),
            (
                "[types.\"\"]\n",
                "line 1",
                "types.: it is not a type's name",
            ),
            ("[types.t]\nunique = [[]]\n", "line 2", "types.t.unique: "),
            (
                "[types.t.references]\na = \"t\"\nb = \"absent\"\n",
                "line 3",
                "types.t.references.b: ",
            ),
            (
                "[types.t.commands.c]\nargs = { type = 7 }\n",
                "line 2",
                "types.t.commands.c.args: ",
            ),
            (
                "[types.t.commands.c]\n[types.t.commands.c.set]\na = \"$b\"\nd = true\n",
                "line 4",
                "types.t.commands.c.set.d: ",
            ),
        ] {
            let message = load(text).unwrap_err().to_string();
            assert!(message.contains(line), "{message}");
            assert!(message.contains(word), "{message}");
        }
    }
}
