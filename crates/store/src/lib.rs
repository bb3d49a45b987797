//! The local store: everything Syncline keeps in the app's own SQLite file.

pub mod capture;
pub mod captured;
pub mod table;
