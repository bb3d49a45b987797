//! Just enough JSON to read what `cargo metadata` and the simulator print: this program has no
//! dependencies.
//!
//! Numbers are kept as they are written. Escapes beyond the simple ones carry nothing that is asked for
//! and are skipped.

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
    /// A number, a boolean or null, as it is written.
    Word(String),
}

impl Json {
    /// Reads a whole document; `None` if it is not JSON.
    pub(crate) fn read(text: &str) -> Option<Json> {
        let mut reader = Reader { rest: text };
        let value = reader.value()?;
        reader.rest.trim_start().is_empty().then_some(value)
    }

    /// The member `name`, if this is an object that has it.
    pub(crate) fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text of the member `name`.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Json::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The number of the member `name`, as it is written.
    pub(crate) fn word(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Json::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// The members of the member `name`; none if it is not an object.
    pub(crate) fn members(&self, name: &str) -> &[(String, Json)] {
        match self.get(name) {
            Some(Json::Object(members)) => members,
            _ => &[],
        }
    }

    /// The elements of the member `name`; none if it is not a list.
    pub(crate) fn list(&self, name: &str) -> &[Json] {
        match self.get(name) {
            Some(Json::List(elements)) => elements,
            _ => &[],
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn value(&mut self) -> Option<Json> {
        self.rest = self.rest.trim_start();
        match self.rest.chars().next()? {
            '"' => self.text().map(Json::Text),
            '[' => self.many(']', Reader::value).map(Json::List),
            '{' => self.many('}', Reader::member).map(Json::Object),
            _ => self.word(),
        }
    }

    fn member(&mut self) -> Option<(String, Json)> {
        self.rest = self.rest.trim_start();
        let name = self.text()?;
        self.take(':').then_some(())?;
        Some((name, self.value()?))
    }

    /// What stands between the bracket at hand and `close`, separated by commas.
    fn many<T>(&mut self, close: char, one: fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.rest = self.rest.get(1..)?;
        let mut all = Vec::new();
        if self.take(close) {
            return Some(all);
        }
        loop {
            all.push(one(self)?);
            if self.take(close) {
                return Some(all);
            }
            self.take(',').then_some(())?;
        }
    }

    fn text(&mut self) -> Option<String> {
        let mut chars = self.rest.strip_prefix('"')?.chars();
        let mut text = String::new();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => text.push(chars.next()?),
                other => text.push(other),
            }
        }
        self.rest = chars.as_str();
        Some(text)
    }

    fn word(&mut self) -> Option<Json> {
        let in_word = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let rest = self.rest.trim_start_matches(in_word);
        let word = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        (!word.is_empty()).then(|| Json::Word(word.to_owned()))
    }

    /// Whether `wanted` comes next; if so it is behind us.
    fn take(&mut self, wanted: char) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_name() {
        let text = r#" {"n": null, "t": "a \"b\"", "l": [{"t": "x"}, 1.5e-3, true], "o": {}} "#;
        let json = Json::read(text).unwrap();
        assert_eq!(json.text("t"), Some(r#"a "b""#));
        assert_eq!(json.list("l")[0].text("t"), Some("x"));
        assert_eq!(
            json.list("l")[1..],
            [
                Json::Word("1.5e-3".to_owned()),
                Json::Word("true".to_owned())
            ]
        );
        assert_eq!(json.get("o"), Some(&Json::Object(Vec::new())));
        assert_eq!((json.text("n"), json.get("none")), (None, None));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            "{",
            "[1,]",
            "[1 2]",
            "{\"a\" 1}",
            "\"open",
            "{} {}",
            "{1:2}",
        ] {
            assert_eq!(Json::read(text), None, "{text}");
        }
    }
}
