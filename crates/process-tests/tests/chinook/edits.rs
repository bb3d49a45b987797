//! What is edited offline in the sample database, and what everyone has to have afterwards.

use syncline_process_tests::Rows;
use syncline_protocol::{Fields, Value};

/// On one device. North syncs first, so South's values reach the server last.
pub(crate) const NORTH: &str = "
UPDATE Track SET Composer = 'of the north' WHERE TrackId = 1;
UPDATE Track SET Name = 'north' WHERE TrackId = 2;
UPDATE Employee SET City = 'Tromsø' WHERE EmployeeId = 2;
INSERT INTO Artist VALUES (9001, 'Nordlys');
INSERT INTO Album VALUES (9001, 'Polar', 9001);
INSERT INTO Track VALUES (9001, 'Aurora', 9001, 1, 1, NULL, 1234, 9007199254740993, 0.1);
INSERT INTO Customer (CustomerId, FirstName, LastName, Email, SupportRepId)
  VALUES (9001, 'Ola', 'O''Nord', 'ola@example.org', 3);
INSERT INTO Invoice (InvoiceId, CustomerId, InvoiceDate, Total) VALUES (9001, 9001, '2026-01-01', 0.1);
INSERT INTO InvoiceLine VALUES (9001, 9001, 9001, 0.1, 1), (9002, 9001, 1, 2, 3);
-- Children before their parents in one statement: the boss has the higher number.
INSERT INTO Employee (EmployeeId, LastName, FirstName, ReportsTo) VALUES (9002, 'Boss', 'B', 1);
INSERT INTO Employee (EmployeeId, LastName, FirstName, ReportsTo) VALUES (9001, 'Help', 'H', 9002);
DELETE FROM PlaylistTrack WHERE PlaylistId = 3;
DELETE FROM Playlist WHERE PlaylistId = 3;
DELETE FROM InvoiceLine WHERE InvoiceLineId IN (5, 6);
-- A changed composite key is a delete and a create.
UPDATE PlaylistTrack SET TrackId = 9001
 WHERE PlaylistId = 5 AND TrackId = (SELECT min(TrackId) FROM PlaylistTrack WHERE PlaylistId = 5);
INSERT INTO PlaylistTrack VALUES (1, 9001)";

/// On the other device.
pub(crate) const SOUTH: &str = "
UPDATE Track SET UnitPrice = 1.5, Bytes = -9223372036854775808 WHERE TrackId = 1;
UPDATE Track SET Name = 'south' WHERE TrackId = 2;
UPDATE Employee SET Phone = '+61', ReportsTo = NULL WHERE EmployeeId = 2;
INSERT INTO Artist VALUES (9101, NULL);
INSERT INTO Album VALUES (9101, 'Southern \"Cross\"', 9101), (9102, '音楽', 1);
INSERT INTO Track VALUES (9101, ' edges ', 9101, 2, NULL, '', 5, NULL, 3);
INSERT INTO Playlist VALUES (9101, 'of the south');
INSERT INTO PlaylistTrack VALUES (9101, 9101), (9101, 1), (1, 9101);
DELETE FROM InvoiceLine WHERE InvoiceLineId IN (1, 5);
UPDATE InvoiceLine SET Quantity = 9 WHERE InvoiceLineId = 6;
UPDATE PlaylistTrack SET PlaylistId = 9101
 WHERE PlaylistId = 8 AND TrackId = (SELECT min(TrackId) FROM PlaylistTrack WHERE PlaylistId = 8 AND TrackId > 2)";

/// Mutations that [`round`] makes.
pub(crate) const PER_ROUND: i64 = 100 + 60 + 60 + 40;

/// Updates, inserts with references, a composite key and deletes: all of them distinct entities.
pub(crate) fn round(who: &str, round: usize) -> String {
    let first = 20_000 + 1_000 * round;
    let series = format!(
        "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {first} + "
    );
    let deletes = if round == 0 {
        // The first round has nothing of its own to delete: other rows are updated instead.
        "UPDATE Invoice SET BillingCity = 'first' WHERE InvoiceId <= 40".to_owned()
    } else {
        format!(
            "DELETE FROM PlaylistTrack WHERE PlaylistId = 1 AND TrackId >= {first} - 1000 AND TrackId < {first} - 960"
        )
    };
    format!(
        "UPDATE Track SET Composer = '{who} {round}' WHERE TrackId <= 100;
         {series}60) INSERT INTO Track SELECT i, '{who} ' || i, 1, 1, 1, NULL, i, i * i, i / 7.0 FROM n;
         {series}60) INSERT INTO PlaylistTrack SELECT 1, i FROM n;
         {deletes}"
    )
}

fn row<'a>(rows: &'a Rows, table: &str, id: &str) -> Option<&'a Fields> {
    rows.get(&(table.to_owned(), id.to_owned()))
}

/// The merges went as promised, and nothing else changed.
pub(crate) fn assert_merged(before: &Rows, merged: &Rows) {
    let field = |table: &str, id: &str, name: &str| {
        let row = row(merged, table, id).unwrap_or_else(|| panic!("{table}/{id} is missing"));
        row.get(name).unwrap().clone()
    };
    let text = |text: &str| Value::Text(text.to_owned());
    // Different columns of one row: both survive.
    assert_eq!(field("Track", "1", "Composer"), text("of the north"));
    assert_eq!(field("Track", "1", "UnitPrice"), Value::Real(1.5));
    assert_eq!(field("Track", "1", "Bytes"), Value::Integer(i64::MIN));
    assert_eq!(field("Employee", "2", "City"), text("Tromsø"));
    assert_eq!(field("Employee", "2", "Phone"), text("+61"));
    assert_eq!(field("Employee", "2", "ReportsTo"), Value::Null);
    // The same column: what reached the server last.
    assert_eq!(field("Track", "2", "Name"), text("south"));
    // Exact values, and references to new rows.
    assert_eq!(
        field("Track", "9001", "Bytes"),
        Value::Integer(9_007_199_254_740_993)
    );
    assert_eq!(field("Track", "9001", "UnitPrice"), Value::Real(0.1));
    assert_eq!(field("Track", "9101", "UnitPrice"), Value::Integer(3));
    assert_eq!(field("Employee", "9001", "ReportsTo"), Value::Integer(9002));
    assert_eq!(
        field("InvoiceLine", "9001", "TrackId"),
        Value::Integer(9001)
    );
    assert_eq!(field("Customer", "9001", "LastName"), text("O'Nord"));
    assert_eq!(field("Artist", "9101", "Name"), Value::Null);
    for key in [
        "[1,9001]",
        "[5,9001]",
        "[9101,9101]",
        "[9101,1]",
        "[1,9101]",
    ] {
        assert!(row(merged, "PlaylistTrack", key).is_some(), "{key}");
    }
    // Deleted by one, by both, and deleted here while edited there: the delete wins.
    for id in ["1", "5", "6"] {
        assert_eq!(row(merged, "InvoiceLine", id), None);
    }
    assert_eq!(row(merged, "Playlist", "3"), None);

    // Everything else is as it was.
    let of_playlist = |rows: &Rows, start: &str| {
        let is_of =
            |(table, id): &&(String, String)| table == "PlaylistTrack" && id.starts_with(start);
        rows.keys().filter(is_of).count()
    };
    assert_eq!(of_playlist(merged, "[3,"), 0);
    assert_eq!(of_playlist(merged, "[5,"), of_playlist(before, "[5,"));
    assert_eq!(of_playlist(merged, "[8,") + 1, of_playlist(before, "[8,"));
    assert_eq!(of_playlist(merged, "[9101,"), 3);
    let changed = before
        .iter()
        .filter(|(name, fields)| merged.get(*name).is_some_and(|now| now != *fields))
        .count();
    assert_eq!(changed, 3, "Track 1, Track 2 and Employee 2");
    let gone = 3 + 1 + of_playlist(before, "[3,") + 1 + 1;
    let new = 3 + 1 + 1 + 2 + 2 + 1 + 1 + 2 + 1 + 1 + 3 + 1 + 1;
    assert_eq!(
        before
            .keys()
            .filter(|name| !merged.contains_key(*name))
            .count(),
        gone
    );
    assert_eq!(
        merged
            .keys()
            .filter(|name| !before.contains_key(*name))
            .count(),
        new
    );
}
