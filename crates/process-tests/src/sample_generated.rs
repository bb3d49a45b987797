//! A generated sample database for places where the real one is not at hand: eleven tables of a
//! music shop with references, a composite key, a self reference and odd values. Always the same.

use rusqlite::{Connection, Transaction, params};
use std::path::Path;

const SCHEMA: &str = "
CREATE TABLE Artist (ArtistId INTEGER NOT NULL, Name NVARCHAR(120), CONSTRAINT PK_Artist PRIMARY KEY (ArtistId));
CREATE TABLE Album (AlbumId INTEGER NOT NULL, Title NVARCHAR(160) NOT NULL, ArtistId INTEGER NOT NULL,
  PRIMARY KEY (AlbumId), FOREIGN KEY (ArtistId) REFERENCES Artist (ArtistId));
CREATE TABLE Employee (EmployeeId INTEGER NOT NULL, LastName NVARCHAR(20) NOT NULL, FirstName NVARCHAR(20) NOT NULL,
  Title NVARCHAR(30), ReportsTo INTEGER, City NVARCHAR(40), Phone NVARCHAR(24), Email NVARCHAR(60),
  PRIMARY KEY (EmployeeId), FOREIGN KEY (ReportsTo) REFERENCES Employee (EmployeeId));
CREATE TABLE Customer (CustomerId INTEGER NOT NULL, FirstName NVARCHAR(40) NOT NULL, LastName NVARCHAR(20) NOT NULL,
  Company NVARCHAR(80), City NVARCHAR(40), Phone NVARCHAR(24), Email NVARCHAR(60) NOT NULL, SupportRepId INTEGER,
  PRIMARY KEY (CustomerId), FOREIGN KEY (SupportRepId) REFERENCES Employee (EmployeeId));
CREATE TABLE Genre (GenreId INTEGER NOT NULL, Name NVARCHAR(120), PRIMARY KEY (GenreId));
CREATE TABLE MediaType (MediaTypeId INTEGER NOT NULL, Name NVARCHAR(120), PRIMARY KEY (MediaTypeId));
CREATE TABLE Track (TrackId INTEGER NOT NULL, Name NVARCHAR(200) NOT NULL, AlbumId INTEGER, MediaTypeId INTEGER NOT NULL,
  GenreId INTEGER, Composer NVARCHAR(220), Milliseconds INTEGER NOT NULL, Bytes INTEGER, UnitPrice NUMERIC(10,2) NOT NULL,
  PRIMARY KEY (TrackId), FOREIGN KEY (AlbumId) REFERENCES Album (AlbumId),
  FOREIGN KEY (GenreId) REFERENCES Genre (GenreId), FOREIGN KEY (MediaTypeId) REFERENCES MediaType (MediaTypeId));
CREATE TABLE Invoice (InvoiceId INTEGER NOT NULL, CustomerId INTEGER NOT NULL, InvoiceDate DATETIME NOT NULL,
  BillingCity NVARCHAR(40), Total NUMERIC(10,2) NOT NULL,
  PRIMARY KEY (InvoiceId), FOREIGN KEY (CustomerId) REFERENCES Customer (CustomerId));
CREATE TABLE InvoiceLine (InvoiceLineId INTEGER NOT NULL, InvoiceId INTEGER NOT NULL, TrackId INTEGER NOT NULL,
  UnitPrice NUMERIC(10,2) NOT NULL, Quantity INTEGER NOT NULL, PRIMARY KEY (InvoiceLineId),
  FOREIGN KEY (InvoiceId) REFERENCES Invoice (InvoiceId), FOREIGN KEY (TrackId) REFERENCES Track (TrackId));
CREATE TABLE Playlist (PlaylistId INTEGER NOT NULL, Name NVARCHAR(120), PRIMARY KEY (PlaylistId));
CREATE TABLE PlaylistTrack (PlaylistId INTEGER NOT NULL, TrackId INTEGER NOT NULL,
  CONSTRAINT PK_PlaylistTrack PRIMARY KEY (PlaylistId, TrackId),
  FOREIGN KEY (PlaylistId) REFERENCES Playlist (PlaylistId), FOREIGN KEY (TrackId) REFERENCES Track (TrackId));
CREATE INDEX IFK_TrackAlbumId ON Track (AlbumId);
CREATE INDEX IFK_PlaylistTrackTrackId ON PlaylistTrack (TrackId);
";

const ARTISTS: i64 = 30;
const ALBUMS: i64 = 45;
const TRACKS: i64 = 180;
const CUSTOMERS: i64 = 20;
const INVOICES: i64 = 40;
const PLAYLISTS: i64 = 12;

/// Makes the database at `path`.
pub(crate) fn generate(path: &Path) {
    let mut conn = Connection::open(path).unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    let tx = conn.transaction().unwrap();
    let mut dice = fastrand::Rng::with_seed(11);
    catalogue(&tx, &mut dice);
    people(&tx, &mut dice);
    sales(&tx, &mut dice);
    tx.commit().unwrap();
}

/// Words in several scripts, with quotes and white space at the ends.
fn word(dice: &mut fastrand::Rng) -> String {
    const WORDS: [&str; 10] = [
        "Aço",
        "Björk",
        "O'Brien",
        "Ødegård",
        "\"quoted\"",
        "Москва",
        "音楽",
        " edge ",
        "😀",
        "Rock",
    ];
    let count = dice.usize(1..4);
    (0..count)
        .map(|_| WORDS[dice.usize(..WORDS.len())])
        .collect::<Vec<_>>()
        .join(" ")
}

fn price(dice: &mut fastrand::Rng) -> f64 {
    // Integers are stored as such in a NUMERIC column; both classes occur.
    [0.99, 1.99, 2.0, 13.860_000_000_000_001][dice.usize(..4)]
}

fn catalogue(tx: &Transaction<'_>, dice: &mut fastrand::Rng) {
    let named = |table: &str, count: i64, dice: &mut fastrand::Rng| {
        for id in 1..=count {
            let name = (id % 7 != 0).then(|| word(dice));
            let sql = format!("INSERT INTO {table} VALUES (?1, ?2)");
            tx.execute(&sql, params![id, name]).unwrap();
        }
    };
    named("Artist", ARTISTS, dice);
    named("Genre", 25, dice);
    named("MediaType", 5, dice);
    named("Playlist", PLAYLISTS, dice);
    for id in 1..=ALBUMS {
        let values = params![id, word(dice), dice.i64(1..=ARTISTS)];
        tx.execute("INSERT INTO Album VALUES (?1, ?2, ?3)", values)
            .unwrap();
    }
    for id in 1..=TRACKS {
        let composer = (id % 3 != 0).then(|| word(dice));
        let values = params![
            id,
            word(dice),
            dice.i64(1..=ALBUMS),
            dice.i64(1..=5),
            dice.i64(1..=25),
            composer,
            dice.i64(1_000..600_000),
            dice.i64(..),
            price(dice)
        ];
        tx.execute(
            "INSERT INTO Track VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)",
            values,
        )
        .unwrap();
        for _ in 0..2 {
            let values = params![dice.i64(1..=PLAYLISTS), id];
            tx.execute(
                "INSERT OR IGNORE INTO PlaylistTrack VALUES (?1, ?2)",
                values,
            )
            .unwrap();
        }
    }
}

fn people(tx: &Transaction<'_>, dice: &mut fastrand::Rng) {
    for id in 1..=8_i64 {
        let boss = (id > 1).then_some(id / 2);
        let values = params![
            id,
            word(dice),
            word(dice),
            word(dice),
            boss,
            word(dice),
            "+1",
            word(dice)
        ];
        tx.execute(
            "INSERT INTO Employee VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
            values,
        )
        .unwrap();
    }
    for id in 1..=CUSTOMERS {
        let company = (id % 2 == 0).then(|| word(dice));
        let rep = dice.i64(1..=8);
        let values = params![
            id,
            word(dice),
            word(dice),
            company,
            word(dice),
            "+2",
            word(dice),
            rep
        ];
        tx.execute(
            "INSERT INTO Customer VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
            values,
        )
        .unwrap();
    }
}

fn sales(tx: &Transaction<'_>, dice: &mut fastrand::Rng) {
    for id in 1..=INVOICES {
        let values = params![
            id,
            dice.i64(1..=CUSTOMERS),
            "2009-01-01 00:00:00",
            word(dice),
            price(dice)
        ];
        tx.execute("INSERT INTO Invoice VALUES (?1,?2,?3,?4,?5)", values)
            .unwrap();
        for line in 0..3 {
            let values = params![id * 3 + line - 2, id, dice.i64(1..=TRACKS), price(dice), 1];
            tx.execute("INSERT INTO InvoiceLine VALUES (?1,?2,?3,?4,?5)", values)
                .unwrap();
        }
    }
}
