//! Reading TOML with the place of everything kept, so that an error can name line and key.

use std::collections::BTreeMap;
use syncline_protocol::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong, and where in the text.
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) key: String,
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

/// A table of the document.
pub(super) struct Table<'a> {
    path: String,
    at: usize,
    inner: &'a DeTable<'a>,
}

/// Parses the text and lets `read` understand it.
pub(super) fn document<T>(
    text: &str,
    read: impl FnOnce(Table<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let parsed = DeTable::parse(text).map_err(|error| Fault {
        at: error.span().map_or(0, |span| span.start),
        key: String::new(),
        reason: error.message().to_owned(),
        hint: None,
    })?;
    read(Table {
        path: String::new(),
        at: 0,
        inner: parsed.get_ref(),
    })
}

/// The number of the line, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    1 + before.filter(|byte| **byte == b'\n').count()
}

impl<'a> Table<'a> {
    /// Refuses any other key.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Fault> {
        for key in self.inner.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let hint = match nearest(name, known) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("the keys here are: {}", known.join(", ")),
                };
                return Err(Fault {
                    at: key.span().start,
                    key: self.path_of(name),
                    reason: "there is no such key".to_owned(),
                    hint: Some(hint),
                });
            }
        }
        Ok(())
    }

    /// The key with the sections that it stands in.
    pub(super) fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// Something is wrong with the value of this key; with the table itself if it has none.
    pub(super) fn fault(&self, key: &str, reason: &str) -> Fault {
        let value = self.inner.get(key).map(|value| value.span().start);
        Fault {
            at: value.unwrap_or(self.at),
            key: self.path_of(key),
            reason: reason.to_owned(),
            hint: None,
        }
    }

    fn typed<T>(
        &self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(value) = self.inner.get(key) else {
            return Ok(None);
        };
        let found = value.get_ref();
        let fault = || self.fault(key, &format!("it must be {wanted}, not {}", a(found)));
        read(found).map(Some).ok_or_else(fault)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Fault> {
        let text = self.typed(key, "a string", |value| value.as_str().map(str::to_owned))?;
        match text {
            Some(text) if text.is_empty() => Err(self.fault(key, "it must not be empty")),
            text => Ok(text),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        self.typed(key, "true or false", DeValue::as_bool)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Fault> {
        self.typed(key, "a whole number, not negative", |value| {
            let number = value.as_integer()?;
            u64::from_str_radix(number.as_str(), number.radix()).ok()
        })
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, Fault> {
        self.typed(key, "an array of strings", |value| {
            let items = value.as_array()?.iter();
            items
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect()
        })
    }

    /// One of these words.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, Fault> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| Some(*meaning)).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let reason = format!("{text:?} is none of: {}", known.join(", "));
            let hint = nearest(&text, &known).map(|meant| format!("did you mean {meant}?"));
            Fault {
                hint,
                ..self.fault(key, &reason)
            }
        })
    }

    pub(super) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, Fault> {
        value.ok_or_else(|| self.fault(key, "it is missing"))
    }

    fn below(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Option<Table<'a>> {
        Some(Table {
            path: self.path_of(key),
            at: value.span().start,
            inner: value.get_ref().as_table()?,
        })
    }

    pub(super) fn table(&self, key: &str) -> Result<Option<Table<'a>>, Fault> {
        let Some(value) = self.inner.get(key) else {
            return Ok(None);
        };
        let fault = || {
            let found = a(value.get_ref());
            self.fault(key, &format!("it must be a table, not {found}"))
        };
        self.below(key, value).map(Some).ok_or_else(fault)
    }

    /// All members, each a table.
    pub(super) fn tables(&self) -> Result<Vec<(String, Table<'a>)>, Fault> {
        let mut tables = Vec::new();
        for key in self.inner.keys() {
            let name = key.get_ref().to_string();
            if let Some(table) = self.table(&name)? {
                tables.push((name, table));
            }
        }
        Ok(tables)
    }

    /// A value that is a string or a table: the table. `None` where it is a string, or not there.
    pub(super) fn unless_text(&self, key: &str, wanted: &str) -> Result<Option<Table<'a>>, Fault> {
        let found = self.typed(key, wanted, |value| match value {
            DeValue::String(_) => Some(false),
            DeValue::Table(_) => Some(true),
            _ => None,
        })?;
        match found {
            Some(true) => self.table(key),
            _ => Ok(None),
        }
    }

    /// A value that is a string or a number: the number. `None` where it is a string, or not there.
    pub(super) fn unless_text_number(&self, key: &str) -> Result<Option<Value>, Fault> {
        let found = self.typed(key, "a number or the name of a column", |value| {
            Some(match value {
                DeValue::String(_) => None,
                DeValue::Integer(number) => {
                    let number = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
                    Some(Value::Integer(number))
                }
                DeValue::Float(number) => {
                    let number: f64 = number.as_str().parse().ok()?;
                    Some(Value::Real(number.is_finite().then_some(number)?))
                }
                _ => return None,
            })
        })?;
        Ok(found.flatten())
    }

    /// All members, each one of these words.
    pub(super) fn all_words<T: Copy>(
        &self,
        words: &[(&str, T)],
    ) -> Result<BTreeMap<String, T>, Fault> {
        let mut all = BTreeMap::new();
        for key in self.inner.keys() {
            let name = key.get_ref().to_string();
            if let Some(word) = self.word(&name, words)? {
                all.insert(name, word);
            }
        }
        Ok(all)
    }

    /// All members, each a string.
    pub(super) fn all_texts(&self) -> Result<BTreeMap<String, String>, Fault> {
        let mut texts = BTreeMap::new();
        for key in self.inner.keys() {
            let name = key.get_ref().to_string();
            if let Some(text) = self.text(&name)? {
                texts.insert(name, text);
            }
        }
        Ok(texts)
    }

    pub(super) fn array_of_tables(&self, key: &str) -> Result<Vec<Table<'a>>, Fault> {
        let tables = self.typed(key, "an array of tables", |value| {
            let items = value.as_array()?.iter();
            items.map(|item| self.below(key, item)).collect()
        });
        tables.map(Option::unwrap_or_default)
    }
}

fn a(value: &DeValue<'_>) -> String {
    match value.type_str() {
        word if word.starts_with(['a', 'e', 'i', 'o', 'u']) => format!("an {word}"),
        word => format!("a {word}"),
    }
}

/// The known word that differs least, if it differs little.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let distances = known.iter().map(|known| (distance(name, known), *known));
    let (distance, meant) = distances.min()?;
    let contains = |part: &str, whole: &str| part.len() > 2 && whole.contains(part);
    if distance <= 1 + name.chars().count() / 3 {
        return Some(meant);
    }
    let mut related = known
        .iter()
        .filter(|known| contains(name, known) || contains(known, name));
    related.next().copied()
}

/// How many characters have to be put in, taken out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut last = i + 1;
        for (slot, right) in row.iter_mut().skip(1).zip(&b) {
            let change = diagonal + usize::from(left != *right);
            diagonal = *slot;
            last = change.min(diagonal + 1).min(last + 1);
            *slot = last;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
