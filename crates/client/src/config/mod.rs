//! `syncline.toml`: one file that says everything that can be set for the database of an app. Read by
//! the library and by the command; `docs/howto/configure.md` shows it in full.
//!
//! Every key that is not understood is an error, with the line it stands in and the key that was
//! probably meant. Nothing here opens a database or a connection.

mod keys;
mod read;
mod rules;

use read::Table;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use syncline_core::ConflictRules;
use syncline_store::{DeclaredReference, SETTINGS, Section, SettingError, Settings, TypeOptions};

/// What a `syncline.toml` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigFile {
    /// The server's address.
    pub url: Option<String>,
    /// Where the token comes from.
    pub token: Option<ConfiguredToken>,
    /// Plain http may leave this machine.
    pub allow_plain_http: bool,
    /// Everything else of `[remote]` and `[sync]`.
    pub settings: Settings,
    /// The entity types, by the name of their table.
    pub types: BTreeMap<String, ConfiguredType>,
}

/// Where a configuration file says that the token comes from.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfiguredToken {
    /// A file.
    File(PathBuf),
    /// What a program prints: the program and its arguments.
    Command(Vec<String>),
}

/// Without the arguments of a program, which may hold secrets.
impl fmt::Debug for ConfiguredToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Command(words) => f.debug_tuple("Command").field(&words.first()).finish(),
        }
    }
}

#[cfg(feature = "http")]
impl From<ConfiguredToken> for crate::TokenSource {
    fn from(token: ConfiguredToken) -> Self {
        match token {
            ConfiguredToken::File(path) => Self::File(path),
            ConfiguredToken::Command(words) => {
                let mut words = words.into_iter();
                // The parser refuses a command without words.
                let program = words.next().unwrap_or_default();
                Self::Command(crate::TokenCommand::new(program, words))
            }
        }
    }
}

/// What a configuration file says of one entity type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfiguredType {
    /// The name of the entity type.
    pub name: String,
    /// How its conflicts are decided; fields by the names of their columns.
    pub rules: ConflictRules,
    /// Everything else.
    pub options: TypeOptions,
}

/// Why a configuration file is refused. Nothing was changed; the same file is refused again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; `None` when the file cannot be read at all.
    pub line: Option<usize>,
    /// The key, with the sections that it stands in; empty when the file is no TOML.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

impl ConfigFile {
    /// Reads a file. Paths in it are relative to its folder.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: path.to_owned(),
            line: None,
            key: String::new(),
            reason: format!("it cannot be read: {error}"),
            hint: None,
        })?;
        Self::parse(&text, path)
    }

    /// Understands the text of a file that stands at `path`.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let folder = path.parent().unwrap_or(Path::new(""));
        read::document(text, |table| config(&table, folder)).map_err(|fault| ConfigError {
            line: Some(read::line_of(text, fault.at)),
            file: path.to_owned(),
            key: fault.key,
            reason: fault.reason,
            hint: fault.hint,
        })
    }
}

fn config(root: &Table<'_>, folder: &Path) -> Result<ConfigFile, read::Fault> {
    root.only(keys::ROOT)?;
    let mut config = ConfigFile::default();
    if let Some(remote) = root.table("remote")? {
        remote.only(&keys::remote())?;
        let url = remote.text("url")?;
        config.url = url.map(|url| url.trim().trim_end_matches('/').to_owned());
        config.allow_plain_http = remote.flag("allow_plain_http")?.unwrap_or(false);
        config.token = token(&remote, folder)?;
        numbers(&remote, Section::Remote, &mut config.settings)?;
    }
    if let Some(sync) = root.table("sync")? {
        sync.only(&keys::sync())?;
        numbers(&sync, Section::Sync, &mut config.settings)?;
    }
    if let Some(types) = root.table("types")? {
        for (name, table) in types.tables()? {
            let (table_name, configured) = entity_type(&name, &table)?;
            if (config.types.keys()).any(|other| other.eq_ignore_ascii_case(&table_name)) {
                return Err(table.fault("table", "another type has this table already"));
            }
            config.types.insert(table_name, configured);
        }
    }
    Ok(config)
}

fn token(remote: &Table<'_>, folder: &Path) -> Result<Option<ConfiguredToken>, read::Fault> {
    let file = remote.text("token_file")?;
    let command = remote.texts("token_command")?;
    match (file, command) {
        (Some(_), Some(_)) => Err(remote.fault("token_command", "there is a token_file as well")),
        (Some(file), None) => Ok(Some(ConfiguredToken::File(folder.join(file)))),
        (None, Some(words)) if words.is_empty() => {
            Err(remote.fault("token_command", "it names no program"))
        }
        (None, words) => Ok(words.map(ConfiguredToken::Command)),
    }
}

fn numbers(
    table: &Table<'_>,
    section: Section,
    settings: &mut Settings,
) -> Result<(), read::Fault> {
    for setting in SETTINGS.iter().filter(|one| one.section == section) {
        let words: Vec<(&str, u64)> = setting.words.iter().copied().zip(0..).collect();
        let given = match words.is_empty() {
            true => table.number(setting.key)?,
            false => table.word(setting.key, &words)?,
        };
        let Some(value) = given else {
            continue;
        };
        settings.set(setting.key, value).map_err(|error| {
            let reason = match error {
                SettingError::OutOfRange { least, most, .. } => {
                    format!("{value} is out of range: {least} to {most}")
                }
                other => other.to_string(),
            };
            table.fault(setting.key, &reason)
        })?;
    }
    Ok(())
}

fn entity_type(name: &str, table: &Table<'_>) -> Result<(String, ConfiguredType), read::Fault> {
    table.only(keys::TYPE)?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(table.fault("", "an entity type has a name without control characters"));
    }
    let mut options = TypeOptions {
        lane: table.word("lane", &keys::LANES)?.unwrap_or_default(),
        id_mode: table.word("id", &keys::ID_MODES)?,
        leave_out: table
            .texts("leave_out")?
            .map(BTreeSet::from_iter)
            .unwrap_or_default(),
        ..TypeOptions::default()
    };
    if let Some(fields) = table.table("fields")? {
        options.fields = fields.all_texts()?;
    }
    for reference in table.array_of_tables("references")? {
        reference.only(keys::REFERENCE)?;
        options.references.push(DeclaredReference {
            columns: reference.required("columns", reference.texts("columns")?)?,
            table: reference.required("table", reference.text("table")?)?,
        });
    }
    if let Some(triggers) = table.table("triggers")? {
        options.triggers = triggers.all_words(&keys::APPLYING)?;
    }
    let configured = ConfiguredType {
        name: name.to_owned(),
        rules: rules::conflict_rules(table)?,
        options,
    };
    Ok((
        table.text("table")?.unwrap_or_else(|| name.to_owned()),
        configured,
    ))
}

#[cfg(test)]
mod tests;
