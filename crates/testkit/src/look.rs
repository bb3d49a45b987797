//! What a device has in its app's tables, as text.

use crate::world::World;
use rusqlite::types::Value as SqlValue;

impl World {
    /// The first column of a query on a device, as text.
    pub fn rows(&mut self, name: &str, sql: &str) -> Vec<String> {
        let app = &self.get(name).app;
        let mut statement = app.prepare(sql).unwrap();
        let rows = statement
            .query_map([], |row| row.get::<_, SqlValue>(0))
            .unwrap();
        rows.map(|value| text(&value.unwrap())).collect()
    }

    /// Every row of every app table of a device, as text.
    pub fn dump(&mut self, name: &str) -> Vec<String> {
        let tables = self.rows(
            name,
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'syncline%'
                AND name NOT LIKE 'sqlite%' ORDER BY name",
        );
        let app = &self.get(name).app;
        let mut lines = Vec::new();
        for table in tables {
            let mut statement = app.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
            let columns = statement.column_count();
            let rows = statement.query_map([], |row| {
                (0..columns)
                    .map(|index| row.get::<_, SqlValue>(index).map(|v| text(&v)))
                    .collect()
            });
            let rows: Vec<Vec<String>> = rows.unwrap().collect::<Result<_, _>>().unwrap();
            lines.extend(
                rows.into_iter()
                    .map(|row| format!("{table}: {}", row.join(" | "))),
            );
        }
        lines.sort();
        lines
    }
}

fn text(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => "NULL".to_owned(),
        SqlValue::Integer(integer) => integer.to_string(),
        SqlValue::Real(real) => format!("{real:?}"),
        SqlValue::Text(text) => text.clone(),
        SqlValue::Blob(bytes) => format!("{bytes:02x?}"),
    }
}
