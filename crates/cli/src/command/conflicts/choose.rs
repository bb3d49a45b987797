//! `syncline conflicts resolve` and `undo`: a person's choice becomes an ordinary mutation.

use super::One;
use crate::command::outbox::nudge;
use crate::database::{self, Database};
use crate::{Failure, Report, text};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use syncline_protocol::Fields;
use syncline_store::conflict::{self, Choice, ConflictDetails, ConflictState, FieldChoice};

/// The longest document that is read, in bytes.
const LONGEST: u64 = 64 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    chosen: Chosen,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Chosen {
    /// Take the row as it is here
    #[arg(long)]
    mine: bool,
    /// Take the server's row
    #[arg(long)]
    theirs: bool,
    /// Take a field from one side, or give it a value as JSON: title=mine, done=theirs,
    /// title='"milk"'; may be given several times. Fields that one side alone changed need no choice
    #[arg(long = "field", value_name = "NAME=mine|theirs|JSON", value_parser = field)]
    fields: Vec<(String, FieldChoice)>,
    /// Take this row: a file with one JSON object of every field, - for standard input
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// Delete the row on both sides
    #[arg(long)]
    delete: bool,
}

fn field(text: &str) -> Result<(String, FieldChoice), String> {
    let (name, value) = text.split_once('=').ok_or("it has no =")?;
    let choice = match value {
        "mine" => FieldChoice::Mine,
        "theirs" => FieldChoice::Theirs,
        json => FieldChoice::Value(serde_json::from_str(json).map_err(|error| {
            format!(
                "{json} is neither mine nor theirs, and no JSON value of a field ({error}); texts need quotes, as in '\"milk\"'"
            )
        })?),
    };
    Ok((name.to_owned(), choice))
}

impl Chosen {
    fn choice(&self) -> Result<Choice, Failure> {
        if self.mine {
            return Ok(Choice::Mine);
        }
        if self.theirs {
            return Ok(Choice::Theirs);
        }
        if self.delete {
            return Ok(Choice::Delete);
        }
        if let Some(path) = &self.document {
            return Ok(Choice::Document(document(path)?));
        }
        let mut fields = BTreeMap::new();
        for (name, choice) in &self.fields {
            if fields.insert(name.clone(), choice.clone()).is_some() {
                let message = format!("--field {name} is given twice");
                return Err(Failure::usage("field-twice", message));
            }
        }
        Ok(Choice::Fields(fields))
    }
}

fn document(path: &Path) -> Result<Fields, Failure> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        Failure::usage("document", format!("{shown} cannot be read: {error}"))
    };
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin()
            .lock()
            .take(LONGEST)
            .read_to_string(&mut text),
        false => {
            std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text))
        }
    };
    read.map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(
            "document",
            format!("{shown} is no JSON object of fields: {error}"),
        )
        .hint("syncline conflicts show DB ID --json has the fields under \"local\" and \"remote\"")
    })
}

pub(super) fn resolve(args: &Args) -> Result<Report, Failure> {
    let (database, id) = (&args.one.database, args.one.id);
    let choice = args.chosen.choice()?;
    let before = conflict::read(&database.read()?, id)?;
    let entity = name(&before);
    if before.conflict.state == ConflictState::Resolved {
        return Err(decided(&before, database));
    }
    database
        .store()?
        .resolve_conflict(id, &choice, database::now())?;
    let after = conflict::read(&database.read()?, id)?;
    nudge(database)?;
    let shown = database.shown();
    let told = format!(
        "conflict {id} of {entity} is decided: {}\n\
         what is to be pushed goes with the next sync; until it is sent, this takes it back:\n\
         \x20 syncline conflicts undo {shown} {id}",
        choice.as_str()
    );
    Report::new(told, &json!({ "resolved": id, "conflict": after }))
}

fn decided(detail: &ConflictDetails, database: &Database) -> Failure {
    let (id, one) = (detail.conflict.id, &detail.conflict);
    let by = one.resolution.as_deref().unwrap_or("a rule");
    let message = format!("conflict {id} of {} is decided already: {by}", name(detail));
    let failure = Failure::new("decided-already", message);
    match one.by_person {
        true => failure.hint(format!(
            "take that back first, while nothing of it was sent: syncline conflicts undo {} {id}",
            database.shown()
        )),
        false => failure.hint("to have other values, write the row: that is an ordinary edit"),
    }
}

pub(super) fn undo(one: &One) -> Result<Report, Failure> {
    let (database, id) = (&one.database, one.id);
    let before = conflict::read(&database.read()?, id)?;
    database.store()?.undo_resolution(id, database::now())?;
    nudge(database)?;
    let told = format!(
        "conflict {id} of {} is open again; row and mutations are as they were",
        name(&before)
    );
    Report::new(told, &json!({ "reopened": id }))
}

fn name(detail: &ConflictDetails) -> String {
    text::entity(&detail.conflict.entity_type, &detail.conflict.entity_id)
}
