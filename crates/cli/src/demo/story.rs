//! The story: one method a step. Each says what it does, does it, and notes what was really seen;
//! whether that was what is promised is judged at the end (`outcome`).

use super::device::{Device, LEASE};
use super::link::{Fault, Net};
use super::server::Server;
use super::teller::Teller;
use super::victim::Victim;
use super::{listing, trouble};
use crate::Failure;
use crate::demo::rows::Name;
use std::path::Path;
use std::time::Duration;
use syncline::{Choice, CycleEnd, FieldChoice, RemoteError, SyncEnd};
use syncline_protocol::Value;

/// How long a process may take to start and to push.
const START_PATIENCE: Duration = Duration::from_secs(20);

const FIRST: &str = "
INSERT INTO project VALUES ('garden', 'Garden');
INSERT INTO task (id, project, title, priority) VALUES
  ('seeds', 'garden', 'Sow tomatoes', 2), ('water', 'garden', 'Water the beds', 1),
  ('fence', 'garden', 'Mend the fence', 4), ('shed', 'garden', 'Paint the shed', 3),
  ('bulbs', 'garden', 'Plant bulbs', 3);";

const ON_LAPTOP: &str = "
UPDATE task SET title = 'Sow tomatoes and basil' WHERE id = 'seeds';
UPDATE task SET title = 'Water the beds at dusk' WHERE id = 'water';
UPDATE task SET priority = 9 WHERE id = 'shed';
INSERT INTO project VALUES ('kitchen', 'Kitchen');
INSERT INTO task (id, project, title) VALUES ('jam', 'kitchen', 'Boil jam');";

const ON_PHONE: &str = "
UPDATE task SET done = 1 WHERE id = 'seeds';
UPDATE task SET title = 'Water the beds twice' WHERE id = 'water';
DELETE FROM task WHERE id = 'fence';";

const BEFORE_THE_KILL: &str = "
UPDATE task SET done = 1 WHERE id = 'bulbs';
INSERT INTO task (id, project, title) VALUES ('tools', 'garden', 'Oil the tools');
UPDATE project SET name = 'Garden, front and back' WHERE id = 'garden';";

/// Both rename the project that the laptop began.
const NAME_ON_PHONE: &str = "UPDATE project SET name = 'Kitchen and pantry' WHERE id = 'kitchen'";

const NAME_ON_LAPTOP: &str = "
UPDATE project SET name = 'Canning kitchen' WHERE id = 'kitchen';
UPDATE task SET priority = 2 WHERE id = 'water';";

/// What a person makes of it.
pub(super) const CHOSEN_NAME: &str = "Kitchen, pantry and canning";

/// What was seen on the way, as far as it cannot be seen at the end.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// Mutations that waited while both devices were offline.
    pub(super) kept_offline: u64,
    /// Both engines found the server unreachable and went on.
    pub(super) unreachable: bool,
    /// Results that the laptop's repeated push brought back as already recorded.
    pub(super) replayed: u64,
    /// Mutations in flight in the killed process's file.
    pub(super) in_flight_at_kill: u64,
    /// The server had taken them when the process died.
    pub(super) server_had_them: bool,
    /// Of those, the ones that were sent again after the restart and recognised.
    pub(super) recognised_after_kill: u64,
    /// The project's name in the conflict that was for a person: base, mine, theirs.
    pub(super) disputed: [Option<Value>; 3],
    /// Mutations that waited while it was open.
    pub(super) paused: u64,
    /// The priority that the server had then of the task that was changed beside it.
    pub(super) beside_it: Option<Value>,
}

/// Everybody in the story.
pub(super) struct Story<'a> {
    teller: &'a Teller,
    pub(super) server: Server,
    pub(super) laptop: Device,
    pub(super) phone: Device,
    pub(super) seen: Seen,
}

impl<'a> Story<'a> {
    /// Tells it from beginning to end; the engines are stopped then, the server still runs.
    pub(super) fn run(folder: &Path, teller: &'a Teller) -> Result<Self, Failure> {
        let mut story = Self::begin(folder, teller)?;
        story.create_offline()?;
        story.sync_first()?;
        story.edit_offline()?;
        story.come_back_badly()?;
        story.die_in_mid_push()?;
        story.ask_a_person()?;
        story.come_to_rest()?;
        Ok(story)
    }

    /// Ends the links and the server; everything is in the files then.
    pub(super) fn end(self) {
        drop((self.laptop, self.phone));
        self.server.stop();
    }

    fn begin(folder: &Path, teller: &'a Teller) -> Result<Self, Failure> {
        teller.step("A server and two devices");
        let server = Server::start(folder)?;
        teller.say(&format!(
            "The server keeps SQLite and speaks HTTP at {}.",
            server.url()
        ));
        teller.say("Its schema says that a task's priority is 1 to 5.");
        let laptop = Device::new("laptop", folder, &server)?;
        let phone = Device::new("phone", folder, &server)?;
        teller.say("laptop.db and phone.db are ordinary SQLite files with the tables project");
        teller.say("and task. Attaching them only added triggers that record what is written.");
        Ok(Self {
            teller,
            server,
            laptop,
            phone,
            seen: Seen::default(),
        })
    }

    fn create_offline(&mut self) -> Result<(), Failure> {
        self.teller.step("Work without a network");
        self.teller
            .say("On the laptop, an app that knows nothing of Syncline inserts a project and");
        self.teller
            .say("its 5 tasks with plain SQL. There is no network, and nobody waits for one.");
        self.laptop.app_writes(FIRST)?;
        let waiting = self.laptop.waiting()?;
        self.teller
            .saw(&format!("{waiting} mutations wait in laptop.db"));
        Ok(())
    }

    fn sync_first(&mut self) -> Result<(), Failure> {
        self.teller.step("First sync");
        for device in [&mut self.laptop, &mut self.phone] {
            device.start()?;
            device.go(Net::Up);
            device.settle()?;
        }
        let rows = listing::fetch(self.server.address(), self.server.token())?.len();
        self.teller
            .say("The laptop pushes, the project before its tasks; the phone pulls.");
        self.teller.saw(&format!(
            "the server has {rows} rows, and so have both devices"
        ));
        Ok(())
    }

    fn edit_offline(&mut self) -> Result<(), Failure> {
        let teller = self.teller;
        teller.step("Both go offline and edit the same things");
        teller.say("task seeds: the laptop changes its title, the phone marks it done");
        teller.say("task water: both change its title");
        teller.say("task fence: the phone deletes it");
        teller.say("task shed:  the laptop sets priority 9, which the server will refuse");
        teller.say("The laptop also starts a new project with a task.");
        for (device, sql) in [(&mut self.laptop, ON_LAPTOP), (&mut self.phone, ON_PHONE)] {
            device.go(Net::Down);
            device.app_writes(sql)?;
        }
        let ends = [self.laptop.sync_once()?, self.phone.sync_once()?];
        self.seen.unreachable = ends.iter().all(is_unreachable);
        let (laptop, phone) = (self.laptop.waiting()?, self.phone.waiting()?);
        self.seen.kept_offline = laptop + phone;
        teller.saw("both try to sync: the server cannot be reached, all work is kept");
        teller.saw(&format!(
            "waiting: {laptop} mutations on the laptop, {phone} on the phone"
        ));
        Ok(())
    }

    fn come_back_badly(&mut self) -> Result<(), Failure> {
        let teller = self.teller;
        teller.step("The network comes back, badly");
        teller.say("The phone's push is answered 503 with Retry-After: 1.");
        self.phone.link.plan(Fault::Busy);
        self.phone.go(Net::Up);
        self.phone.settle()?;
        let pause = self.phone.link.traffic().pause.unwrap_or_default();
        teller.saw(&format!(
            "it waits {:.1} s, sends the same bytes again, and is done",
            pause.as_secs_f64()
        ));
        teller.say("The laptop's push reaches the server, but the answer is lost on the way back.");
        self.laptop.link.plan(Fault::LoseAnswer);
        self.laptop.go(Net::Up);
        self.laptop.settle()?;
        self.seen.replayed = self.laptop.link.traffic().duplicates;
        teller.saw(&format!(
            "it cannot know, so it sends the same bytes under the same keys; the server\n\
             recognises all {} and does nothing twice. What it answers again:\n\
             - the new project is there, so its task can follow\n\
             - seeds and water changed meanwhile: merged field by field, sent anew\n\
             - shed is refused for good; it holds up nothing else",
            self.seen.replayed
        ));
        Ok(())
    }

    fn die_in_mid_push(&mut self) -> Result<(), Failure> {
        let teller = self.teller;
        teller.step("A device dies in the middle of a push");
        self.phone.stop();
        self.phone.app_writes(BEFORE_THE_KILL)?;
        self.phone.link.plan(Fault::HoldAnswer);
        let before = self.phone.link.traffic().duplicates;
        teller.say("A process of the phone's own pushes new edits. The server takes them, the");
        teller.say("answer is held back, and the process is killed (kill -9).");
        let mut victim = Victim::start(&self.phone)?;
        if !self.phone.link.wait_until_held(START_PATIENCE) {
            return Err(trouble("the phone's process", "it did not push in time"));
        }
        victim.kill()?;
        let status = self.phone.status()?;
        let in_flight = status.outbox.get("in_flight").copied().unwrap_or(0);
        let listed = listing::fetch(self.server.address(), self.server.token())?;
        self.seen.in_flight_at_kill = in_flight;
        self.seen.server_had_them = listed.contains_key(&Name::task("tools"));
        teller.saw(&format!(
            "phone.db: {in_flight} mutations in flight; the server has them, the phone cannot know"
        ));
        teller.say(&format!(
            "Reopened, it waits until the dead process's lease ends ({:.1} s at most here, a",
            LEASE.as_secs_f64()
        ));
        teller.say("minute by default), then sends the same bytes under the same keys.");
        self.phone.start()?;
        self.phone.settle()?;
        let recognised = self.phone.link.traffic().duplicates - before;
        self.seen.recognised_after_kill = recognised;
        teller.saw(&format!(
            "the server recognises all {recognised}: nothing lost, nothing doubled"
        ));
        Ok(())
    }

    fn ask_a_person(&mut self) -> Result<(), Failure> {
        let teller = self.teller;
        teller.step("A conflict that only a person can decide");
        teller.say("A project's name is declared `manual`. Both devices rename the kitchen; the");
        teller.say("laptop, offline, also changes the priority of task water.");
        self.laptop.go(Net::Down);
        self.phone.app_writes(NAME_ON_PHONE)?;
        self.phone.settle()?;
        self.laptop.app_writes(NAME_ON_LAPTOP)?;
        self.laptop.go(Net::Up);
        let conflict = self.laptop.settle_but_a_conflict()?;
        let listed = listing::fetch(self.server.address(), self.server.token())?;
        let field = |row: &Name, field: &str| listed.get(row)?.get(field).cloned();
        self.seen.paused = self.laptop.waiting()?;
        self.seen.beside_it = field(&Name::task("water"), "priority");
        let name = conflict.fields.iter().find(|one| one.name == "name");
        if let Some(name) = name {
            self.seen.disputed = [name.base.clone(), name.mine.clone(), name.theirs.clone()];
        }
        let [base, mine, theirs] = self.seen.disputed.each_ref().map(shown);
        teller.saw(&format!(
            "it pauses the project alone; the task's priority is on the server already\n\
             `syncline conflicts show` would say of the name: base {base},\n\
             mine {mine}, theirs {theirs}"
        ));
        let chosen = FieldChoice::Value(CHOSEN_NAME.into());
        let choice = Choice::Fields([("name".to_owned(), chosen)].into());
        self.laptop.decide(conflict.conflict.id, choice)?;
        self.laptop.settle()?;
        teller.say("`syncline conflicts resolve` takes either name, or a third one.");
        teller.saw(&format!(
            "decided: {CHOSEN_NAME:?}; from here on it is an ordinary edit, and is pushed"
        ));
        Ok(())
    }

    fn come_to_rest(&mut self) -> Result<(), Failure> {
        self.teller.step("Everyone syncs once more");
        self.laptop.settle()?;
        self.phone.settle()?;
        self.laptop.stop();
        self.phone.stop();
        self.teller
            .say("Now both files are compared, row by row, with what the server itself lists.");
        Ok(())
    }
}

fn shown(value: &Option<Value>) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn is_unreachable(end: &SyncEnd) -> bool {
    matches!(
        end,
        SyncEnd::Cycle(CycleEnd::RemoteFailed(RemoteError::Unreachable { .. }))
    )
}

#[cfg(test)]
mod tests;
