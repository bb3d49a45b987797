//! Tables that a history draws, described as data: their names, what identifies their rows, their columns and what
//! they refer to; and the SQL that makes them. Every row has in `made` the name that it keeps for ever.

use super::scenario::Setup;
use crate::reference::values;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Names of tables.
const TABLES: [&str; 8] = [
    "plain",
    "two words",
    "select",
    "say \"so\"",
    "größe",
    "it's",
    "a.b",
    "[in]",
];
/// Names of columns.
const COLUMNS: [&str; 12] = [
    "v",
    "two words",
    "order",
    "say \"so\"",
    "ß",
    "it's",
    "a.b",
    "$v",
    "{v",
    "rowid",
    "VALUE",
    "50%",
];
/// Names of columns that had another one before.
const RENAMED: [&str; 12] = [
    "v 2",
    "two words 2",
    "order 2",
    "say \"so\" 2",
    "ß 2",
    "it's 2",
    "a.b 2",
    "$v 2",
    "{v 2",
    "rowid 2",
    "VALUE 2",
    "50% 2",
];
/// Names of keys.
const KEYS: [&str; 4] = ["id", "the key", "group", "k\"ey"];

/// A table that a history draws.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Drawn {
    /// Its name, by number.
    pub name: u8,
    /// What identifies its rows.
    pub key: Key,
    /// Whether it is WITHOUT ROWID.
    pub without_rowid: bool,
    /// Whether it is STRICT.
    pub strict: bool,
    /// What apps write into it.
    pub columns: Vec<Column>,
    /// What its rows refer to.
    pub references: Vec<Reference>,
}

/// What identifies the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// An integer that SQLite assigns.
    Assigned,
    /// An integer that the app chooses.
    Number,
    /// A text, also one that looks like a number or JSON.
    Text,
    /// Bytes.
    Blob,
    /// A text and a number.
    Pair,
    /// A number and bytes.
    Mixed,
    /// What the first reference says, and one of few numbers, which are used again.
    Child,
}

/// A column that apps write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Column {
    /// Its name, by number.
    pub name: u8,
    /// What it holds.
    pub kind: Kind,
    /// What the schema asks of it.
    pub rule: Rule,
    /// Whether it has another name than it had first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renamed: bool,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Texts.
    Text,
    /// Integers, to the largest.
    Integer,
    /// Floating-point numbers.
    Real,
    /// Bytes.
    Blob,
    /// Whatever number it is, or a text.
    Numeric,
    /// Values of all classes.
    Any,
}

/// What the schema asks of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// Nothing.
    Plain,
    /// NOT NULL.
    NotNull,
    /// NOT NULL, with a default.
    Default,
    /// A CHECK.
    Check,
    /// UNIQUE.
    Unique,
    /// A unique index over an expression, which is partial.
    UniqueIndex,
    /// It is computed, and stored or not.
    Generated {
        /// Which.
        stored: bool,
    },
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// Whither.
    pub to: To,
    /// What becomes of rows whose parent is deleted.
    pub on_delete: Action,
    /// Whether it is looked at when the transaction is committed.
    pub deferred: bool,
    /// Whether every row has a parent.
    pub required: bool,
}

/// What a foreign key refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum To {
    /// A table that is drawn as well, or the same.
    Drawn(u8),
    /// Notes.
    Note,
    /// Projects.
    Project,
    /// Tasks.
    Task,
}

/// What becomes of rows whose parent is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// They go too.
    Cascade,
    /// They have none.
    SetNull,
    /// As their columns' default says, which is none.
    SetDefault,
    /// It stays, at once.
    Restrict,
    /// It stays, unless they go in the same transaction where the key is deferred.
    NoAction,
}

impl Action {
    fn sql(self) -> &'static str {
        match self {
            Self::Cascade => "CASCADE",
            Self::SetNull => "SET NULL",
            Self::SetDefault => "SET DEFAULT",
            Self::Restrict => "RESTRICT",
            Self::NoAction => "NO ACTION",
        }
    }
}

impl Reference {
    /// Whether a parent that is deleted elsewhere comes back for the sake of its rows here.
    pub(crate) fn keeps(&self) -> bool {
        match self.on_delete {
            Action::Cascade => false,
            Action::SetNull | Action::SetDefault => self.required,
            Action::Restrict | Action::NoAction => true,
        }
    }
}

impl Kind {
    /// All of them, to draw from.
    pub const ALL: [Self; 6] = [
        Self::Text,
        Self::Integer,
        Self::Real,
        Self::Blob,
        Self::Numeric,
        Self::Any,
    ];

    fn declared(self, strict: bool) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            Self::Blob => "BLOB",
            Self::Numeric if !strict => "NUMERIC",
            Self::Any if !strict => "",
            Self::Numeric | Self::Any => "ANY",
        }
    }

    fn default(self) -> &'static str {
        match self {
            Self::Text => "'it''s'",
            Self::Integer => "42",
            Self::Real => "1.5",
            Self::Blob => "x'00FF'",
            Self::Numeric => "0.1",
            Self::Any => "'any'",
        }
    }
}

impl Rule {
    /// All of them, to draw from; most columns are plain.
    pub const ALL: [Self; 11] = [
        Self::Plain,
        Self::Plain,
        Self::Plain,
        Self::Plain,
        Self::NotNull,
        Self::Default,
        Self::Check,
        Self::Unique,
        Self::UniqueIndex,
        Self::Generated { stored: false },
        Self::Generated { stored: true },
    ];
}

impl Column {
    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        match self.renamed {
            true => RENAMED[usize::from(self.name) % RENAMED.len()],
            false => self.field(),
        }
    }

    /// Its name on the wire, which is the first that it had.
    pub(crate) fn field(&self) -> &'static str {
        COLUMNS[usize::from(self.name) % COLUMNS.len()]
    }

    /// What it holds where nobody wrote it.
    pub(crate) fn unsaid(&self) -> Value {
        match (self.rule, self.kind) {
            (Rule::Default, Kind::Text) => "it's".into(),
            (Rule::Default, Kind::Integer) => 42.into(),
            (Rule::Default, Kind::Real) => 1.5.into(),
            (Rule::Default, Kind::Blob) => values::blob(&[0, 0xff]),
            (Rule::Default, Kind::Numeric) => 0.1.into(),
            (Rule::Default, Kind::Any) => "any".into(),
            _ => Value::Null,
        }
    }

    /// Whether nobody writes it.
    pub(crate) fn is_generated(&self) -> bool {
        matches!(self.rule, Rule::Generated { .. })
    }

    /// Whether it may be empty.
    pub(crate) fn is_nullable(&self) -> bool {
        !matches!(self.rule, Rule::NotNull | Rule::Default)
    }

    /// Its definition.
    pub(crate) fn sql(&self, strict: bool) -> String {
        let name = quoted(self.name());
        let kind = self.kind.declared(strict);
        match self.rule {
            Rule::Plain | Rule::UniqueIndex => format!("{name} {kind}"),
            Rule::NotNull => format!("{name} {kind} NOT NULL"),
            Rule::Default => format!("{name} {kind} NOT NULL DEFAULT {}", self.kind.default()),
            Rule::Check => format!("{name} {kind} CHECK ({name} IS NULL OR length({name}) > 1)"),
            Rule::Unique => format!("{name} {kind} UNIQUE"),
            Rule::Generated { stored } => {
                let place = if stored { "STORED" } else { "VIRTUAL" };
                format!("{name} INTEGER GENERATED ALWAYS AS (length(made) * 2) {place}")
            }
        }
    }
}

/// The name on the wire of a drawn table's column.
pub(crate) fn field(column: &str) -> &str {
    let renamed = RENAMED.iter().position(|name| *name == column);
    renamed.map_or(column, |at| COLUMNS[at])
}

/// A name as SQL writes it, whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| quoted(name)).collect();
    names.join(", ")
}

impl Drawn {
    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        TABLES[usize::from(self.name) % TABLES.len()]
    }
}

impl To {
    /// The table's name, and the column that has its rows' names for ever.
    pub(crate) fn table(self, drawn: &[Drawn]) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::Drawn(n) => (drawn.get(usize::from(n))?.name(), "made"),
            Self::Note => ("note", "id"),
            Self::Project => ("project", "made"),
            Self::Task => ("task", "made"),
        })
    }

    /// The columns of the key there, with their types.
    fn key(self, drawn: &[Drawn]) -> Vec<(String, &'static str)> {
        match self {
            Self::Drawn(n) => key(drawn, usize::from(n)),
            Self::Note => vec![("id".to_owned(), "TEXT")],
            Self::Project | Self::Task => vec![("id".to_owned(), "INTEGER")],
        }
    }
}

/// The columns of a table's key, with their types.
pub(crate) fn key(drawn: &[Drawn], n: usize) -> Vec<(String, &'static str)> {
    let Some(table) = drawn.get(n) else {
        return Vec::new();
    };
    let named = |kind| (KEYS[usize::from(table.name) % KEYS.len()].to_owned(), kind);
    let number = || ("number".to_owned(), "INTEGER");
    match table.key {
        Key::Assigned => vec![named("INTEGER")],
        Key::Number => vec![named("INT")],
        Key::Text => vec![named("TEXT")],
        Key::Blob => vec![named("BLOB")],
        Key::Pair => vec![named("TEXT"), number()],
        Key::Mixed => vec![number(), named("BLOB")],
        Key::Child => {
            let mut key = reference(drawn, n, 0);
            key.push(number());
            key
        }
    }
}

/// The columns of a table's reference, with their types.
pub(crate) fn reference(drawn: &[Drawn], n: usize, which: usize) -> Vec<(String, &'static str)> {
    let found = drawn.get(n).and_then(|table| table.references.get(which));
    let key = found.map(|one| one.to.key(drawn)).unwrap_or_default();
    let named = |(at, (_, kind))| (format!("→{which}.{at}"), kind);
    key.into_iter().enumerate().map(named).collect()
}

/// The statements that make a table.
pub(crate) fn create(drawn: &[Drawn], n: usize) -> String {
    let [table, indexes] = definition(drawn, n, drawn[n].name());
    format!("{table};{indexes}")
}

/// The statements that make a table anew, with an index more.
pub(crate) fn rebuild(drawn: &[Drawn], n: usize) -> String {
    let [table, indexes] = definition(drawn, n, "rebuilt");
    let name = quoted(drawn[n].name());
    let mut columns: Vec<String> = key(drawn, n)
        .into_iter()
        .map(|(column, _)| column)
        .collect();
    columns.push("made".to_owned());
    let written = drawn[n].columns.iter().filter(|one| !one.is_generated());
    columns.extend(written.map(|one| one.name().to_owned()));
    for which in 0..drawn[n].references.len() {
        let more = reference(drawn, n, which)
            .into_iter()
            .map(|(column, _)| column);
        let more: Vec<String> = more.filter(|column| !columns.contains(column)).collect();
        columns.extend(more);
    }
    let columns = list(&columns);
    format!(
        "{table}; INSERT INTO rebuilt ({columns}) SELECT {columns} FROM {name}; DROP TABLE {name};
         ALTER TABLE rebuilt RENAME TO {name};{indexes} CREATE INDEX \"made {n}\" ON {name} (made)"
    )
}

/// A table under a name, and its indexes.
fn definition(drawn: &[Drawn], n: usize, called: &str) -> [String; 2] {
    let table = &drawn[n];
    let name = quoted(table.name());
    let key = key(drawn, n);
    let mut parts: Vec<String> = Vec::new();
    let mut indexes = String::new();
    let is_reference = |column: &String| column.starts_with('→');
    for (column, kind) in key.iter().filter(|(column, _)| !is_reference(column)) {
        parts.push(match table.key {
            Key::Assigned => format!("{} INTEGER PRIMARY KEY", quoted(column)),
            _ => format!("{} {kind} NOT NULL", quoted(column)),
        });
    }
    parts.push("made TEXT NOT NULL".to_owned());
    parts.extend(table.columns.iter().map(|column| column.sql(table.strict)));
    let mut constraints = Vec::new();
    for (which, one) in table.references.iter().enumerate() {
        let columns = reference(drawn, n, which);
        let null = if one.required { " NOT NULL" } else { "" };
        let plain = |(column, kind): &(String, &str)| format!("{} {kind}{null}", quoted(column));
        parts.extend(columns.iter().map(plain));
        let columns = list(columns.iter().map(|(column, _)| column));
        let (to, _) = one.to.table(drawn).unwrap_or_default();
        let late = if one.deferred {
            " DEFERRABLE INITIALLY DEFERRED"
        } else {
            ""
        };
        constraints.push(format!(
            "FOREIGN KEY ({columns}) REFERENCES {} ON DELETE {}{late}",
            quoted(to),
            one.on_delete.sql()
        ));
        indexes += &format!("CREATE INDEX \"by {n} {which}\" ON {name} ({columns});");
    }
    if table.key != Key::Assigned {
        let key = list(key.iter().map(|(column, _)| column));
        parts.push(format!("PRIMARY KEY ({key})"));
    }
    parts.extend(constraints);
    for column in table
        .columns
        .iter()
        .filter(|one| one.rule == Rule::UniqueIndex)
    {
        let of = quoted(column.name());
        indexes += &format!(
            "CREATE UNIQUE INDEX \"one {n} {}\" ON {name} (hex({of})) WHERE {of} IS NOT NULL;",
            column.name
        );
    }
    let options: Vec<&str> = [
        (table.without_rowid, "WITHOUT ROWID"),
        (table.strict, "STRICT"),
    ]
    .into_iter()
    .filter_map(|(wanted, option)| wanted.then_some(option))
    .collect();
    let table = format!(
        "CREATE TABLE {} ({}) {}",
        quoted(called),
        parts.join(", "),
        options.join(", ")
    );
    [table, indexes]
}

impl Setup {
    /// The tables of this history.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let own = [
            (self.tables.notes(), &["note"][..]),
            (self.tables.tree(), &["project", "task", "step"]),
            (self.tables.bank(), &["account"]),
        ];
        let own = own.into_iter().filter(|(wanted, _)| *wanted);
        let own = own.flat_map(|(_, names)| names.iter().copied());
        own.chain(self.drawn.iter().map(Drawn::name)).collect()
    }

    /// Which of the drawn tables this is.
    pub(crate) fn drawn_table(&self, table: &str) -> Option<usize> {
        self.drawn.iter().position(|one| one.name() == table)
    }

    /// The columns of a table's key.
    pub(crate) fn key(&self, table: &str) -> Vec<String> {
        if let Some(n) = self.drawn_table(table) {
            let key = key(&self.drawn, n).into_iter();
            return key.map(|(column, _)| column).collect();
        }
        let names: &[&str] = match table {
            "step" => &["task", "number"],
            _ => &["id"],
        };
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// The columns of a table that refer to another table, whose name comes first.
    pub(crate) fn references(&self, table: &str) -> Vec<(&'static str, Vec<String>)> {
        let Some(n) = self.drawn_table(table) else {
            return match table {
                "task" => vec![("project", vec!["project".to_owned()])],
                "step" => vec![("task", vec!["task".to_owned()])],
                _ => Vec::new(),
            };
        };
        let references = self.drawn[n].references.iter().enumerate();
        let found = references.filter_map(|(which, one)| {
            let columns = reference(&self.drawn, n, which).into_iter();
            let columns = columns.map(|(column, _)| column).collect();
            Some((one.to.table(&self.drawn)?.0, columns))
        });
        found.collect()
    }
}
