//! The core level's share on every change: seeds that must be clean, a tour through every cell of the
//! machine's table, and scenarios that once broke an invariant.

use std::collections::BTreeMap;
use syncline_simulator::level::{Cell, Level};
use syncline_simulator::model::CoreLevel;
use syncline_simulator::model::cover::{IMPOSSIBLE, KINDS, STATES, is_impossible};
use syncline_simulator::model::plan::Fate::{self, *};
use syncline_simulator::model::plan::Setup;
use syncline_simulator::model::plan::Step::{self, *};
use syncline_simulator::model::{play, run};
use syncline_simulator::runner::{Run, run as run_seeds};

/// One file, one process, everything as plain as can be.
const PLAIN: Setup = Setup {
    dice: 1,
    files: 1,
    second: false,
    orders: 0,
    policy: 0,
    push: 5,
    page: 5,
    attempts: 3,
    entities: 4,
};

/// Conflicts wait for a person.
const MANUAL: Setup = Setup { policy: 5, ..PLAIN };

const D: Step = Deliver(0, Answered);
const WRITE: Step = Write {
    process: 0,
    entity: 1,
    pick: 200,
};
const ELSEWHERE: Step = Foreign {
    entity: 1,
    delete: false,
};

/// Seeds of every change; `cargo xtask torture` plays many more.
const SHARE: u64 = 250;

/// F:S1–S25, F:L1–L5 and those of ARCHITECTURE.md; a sixteenth of the seeds twice (F:S24).
#[test]
fn every_seed_of_the_share_is_clean() {
    let share = Run::of_every_change(SHARE);
    let report = run_seeds(&CoreLevel::default(), share);
    assert!(report.is_clean(), "{report}");
    assert!(report.twice > 0 && report.seeds == SHARE);
    assert!(report.faults.len() >= 25, "{:?}", report.faults);
}

/// Ways into the states, the answers that come there, and a way to wait for the lease.
fn ways() -> Vec<(Setup, Vec<Step>)> {
    let manual = vec![WRITE, ELSEWHERE, Trigger(0, 4), D, D, D, D];
    let cancel = vec![
        WRITE,
        Trigger(0, 4),
        D,
        D,
        Deliver(0, AnswerLost),
        Person(0, 2),
        D,
    ];
    let with = |way: &[Step], more: &[Step]| way.iter().chain(more).copied().collect::<Vec<_>>();
    vec![
        (PLAIN, vec![]),
        (PLAIN, vec![Trigger(0, 0)]),
        (PLAIN, vec![Trigger(0, 0), D]),
        (PLAIN, vec![WRITE, Trigger(0, 4), D, D]),
        (PLAIN, vec![WRITE, Trigger(0, 4), D, D, D]),
        (PLAIN, vec![WRITE, Trigger(0, 4), D, D, D, D]),
        (PLAIN, vec![WRITE, Trigger(0, 4), D, D, D, D, Live(0, true)]),
        (PLAIN, cancel),
        (PLAIN, vec![Trigger(0, 0), Deliver(0, Unauthorized)]),
        (PLAIN, vec![Trigger(0, 0), Deliver(0, Lost)]),
        (PLAIN, vec![Trigger(0, 0), Deliver(0, Overloaded(600))]),
        (PLAIN, vec![Trigger(0, 0), Pause(0)]),
        (PLAIN, vec![Trigger(0, 0), NetworkLost(0)]),
        (
            Setup { orders: 1, ..PLAIN },
            vec![WRITE, Trigger(0, 4), D, D, D, D],
        ),
        (
            Setup { orders: 1, ..PLAIN },
            vec![Trigger(0, 4), D, D, D, WRITE, ELSEWHERE, Trigger(0, 4)],
        ),
        (MANUAL, with(&manual, &[Live(0, true)])),
        (MANUAL, manual),
        (
            Setup {
                second: true,
                ..PLAIN
            },
            vec![Trigger(1, 0), Trigger(0, 0)],
        ),
    ]
}

/// Everything that can happen to a process, one thing (or a few that belong together) at a time.
fn happenings() -> Vec<Vec<Step>> {
    const FATES: [Fate; 13] = [
        Answered,
        Lost,
        Overloaded(0),
        Overloaded(30),
        Broken(0),
        Broken(30),
        Unauthorized,
        Forked,
        TooLarge,
        CursorGone,
        Incompatible,
        Misconfigured,
        WrongKind,
    ];
    let mut all: Vec<Vec<Step>> = FATES.iter().map(|fate| vec![Deliver(0, *fate)]).collect();
    all.extend((0..35).map(|how| vec![Deliver(0, Bent(how))]));
    all.extend((0..11).map(|reason| vec![Trigger(0, reason)]));
    for fault in 0..8 {
        all.extend([D, Wake(0), Trigger(0, 4)].map(|next| vec![StoreFault(0, fault), next]));
    }
    all.extend([
        vec![NetworkLost(0), Ghost(0)],
        vec![Constraints(0, true), Constraints(0, false)],
        vec![Pause(0), Resume(0)],
        vec![Pause(0), Bounded(0, 2), Bounded(0, 0)],
        vec![Bounded(0, 3), D, Bounded(0, 0)],
        vec![Live(0, true), Live(0, false)],
        vec![Tick(0)],
        vec![Wake(0)],
        vec![Credentials(0, true)],
        vec![Credentials(0, false)],
        vec![Account(0, false), D, Credentials(0, true), D],
        vec![Epoch, D, D, D],
        vec![Crash(0, true), Trigger(0, 4), Start(0)],
        vec![Stop(0)],
        vec![D, Echo(0)],
        vec![NetworkLost(0), Echo(0)],
        vec![WRITE, Wake(0)],
        vec![Purge, ELSEWHERE, D],
    ]);
    all
}

/// F:M2: every cell of (state × input) is visited by the tour, or listed with the reason why not; none
/// of the listed ones is visited. No step of the tour breaks an invariant.
#[test]
fn every_cell_of_the_machines_table_is_reached_or_listed_as_impossible() {
    let mut cells: BTreeMap<Cell, u64> = BTreeMap::new();
    for (setup, way) in ways() {
        for happening in happenings() {
            let steps: Vec<Step> = way.iter().chain(&happening).copied().collect();
            let played = run(setup, &steps);
            assert_eq!(played.broken, None, "{setup:?} {steps:?}");
            for (cell, visits) in played.cells {
                *cells.entry(cell).or_default() += visits;
            }
        }
    }
    let reached = |cell: &Cell| cells.contains_key(cell);
    let all = STATES
        .iter()
        .flat_map(|state| KINDS.iter().map(move |kind| (*state, *kind)));
    let all: Vec<Cell> = all.collect();
    let wrong: Vec<&Cell> = (all.iter())
        .filter(|cell| reached(cell) == is_impossible(**cell, IMPOSSIBLE))
        .collect();
    assert!(
        wrong.is_empty(),
        "not reached and not listed, or listed and reached: {wrong:?}"
    );
}

/// F:S24.
#[test]
fn the_same_seed_is_played_the_same_way() {
    for seed in 0..40 {
        let level = CoreLevel::default();
        assert_eq!(level.play(seed), level.play(seed));
    }
}

/// F:B14: a server that wants to be left alone was asked again as soon as the host had paused and gone on.
#[test]
fn a_pause_does_not_shorten_what_a_server_asked_for() {
    let steps = [
        Trigger(0, 0),
        Deliver(0, Overloaded(30)),
        Pause(0),
        Resume(0),
    ];
    assert_eq!(play(PLAIN, &steps), None);
    let pass = [
        Trigger(0, 0),
        Deliver(0, Overloaded(30)),
        Pause(0),
        Bounded(0, 3),
    ];
    assert_eq!(play(PLAIN, &pass), None);
}

/// F:B14: a store that was busy when the lease was to be renewed, or when the refused batch was booked,
/// made the machine forget how long the server wanted to be left alone.
#[test]
fn store_trouble_does_not_shorten_what_a_server_asked_for() {
    let renewing = [
        Trigger(0, 0),
        Deliver(0, Overloaded(600)),
        StoreFault(0, 1),
        Wake(0),
        Wake(0),
        Trigger(0, 2),
    ];
    assert_eq!(play(PLAIN, &renewing), None);
    let booking = [
        WRITE,
        Trigger(0, 4),
        D,
        D,
        StoreFault(0, 1),
        Deliver(0, Overloaded(600)),
        Trigger(0, 2),
    ];
    assert_eq!(play(PLAIN, &booking), None);
}

/// F:B14: a 500 that asks for patience was taken for a batch to be halved at once.
#[test]
fn a_broken_server_that_asks_for_patience_gets_it() {
    let steps = [
        WRITE,
        Trigger(0, 4),
        D,
        D,
        Deliver(0, Broken(600)),
        Trigger(0, 2),
        Wake(0),
    ];
    assert_eq!(play(PLAIN, &steps), None);
}

/// D:I1: a store that failed while it took a greeting in was not greeted again.
#[test]
fn a_greeting_that_was_not_taken_in_is_made_again() {
    let steps = [
        Trigger(0, 0),
        StoreFault(0, 1),
        D,
        Trigger(0, 2),
        WRITE,
        Wake(0),
    ];
    assert_eq!(play(PLAIN, &steps), None);
}

/// F:S25: an answer of another kind under the right number was taken for the answer.
#[test]
fn an_answer_of_another_kind_is_no_answer() {
    let steps = [Trigger(0, 0), Deliver(0, WrongKind)];
    assert_eq!(play(PLAIN, &steps), None);
}

/// D:C4: a server that names no size at all was never sent anything, and nobody was told.
#[test]
fn a_server_that_names_no_size_is_sent_one_at_a_time() {
    let steps = [WRITE, Trigger(0, 0), Deliver(0, Bent(0)), D];
    assert_eq!(play(PLAIN, &steps), None);
}

/// Seed 1000059928, F:L1: two processes of one file had one token between them in the model, so that one
/// of them was never asked for new credentials and its push was refused to the end. Credentials are a
/// process's own.
#[test]
fn new_credentials_of_one_process_are_not_those_of_another() {
    let setup = Setup {
        second: true,
        orders: 4,
        attempts: 2,
        page: 3,
        policy: 2,
        ..PLAIN
    };
    let steps = [
        Trigger(0, 0),
        Trigger(1, 0),
        StoreFault(0, 204),
        Constraints(1, true),
        Wake(1),
        Deliver(1, Answered),
        Crash(2, false),
        Trigger(0, 0),
        Deliver(1, Answered),
        Account(0, false),
        Start(0),
        Write {
            process: 1,
            entity: 7,
            pick: 5,
        },
        Write {
            process: 2,
            entity: 7,
            pick: 212,
        },
        Deliver(1, Answered),
    ];
    assert_eq!(play(setup, &steps), None);
}

/// Seed 2000159641 of the core level, F:S25: the first page of all said that it reached to position -1 and
/// was believed; what it told of a row in doubt was lost.
#[test]
fn a_first_page_that_ends_before_the_beginning_is_not_believed() {
    let setup = Setup {
        files: 2,
        policy: 3,
        page: 4,
        attempts: 5,
        entities: 3,
        ..PLAIN
    };
    let steps = [
        Trigger(2, 0),
        StoreFault(0, 54),
        Deliver(2, Answered),
        Wake(0),
        Deliver(0, Answered),
        Deliver(2, Answered),
        Write {
            process: 2,
            entity: 4,
            pick: 100,
        },
        StoreFault(2, 248),
        Deliver(2, Answered),
        StoreFault(2, 47),
        Wake(2),
        Trigger(2, 4),
        Write {
            process: 2,
            entity: 3,
            pick: 96,
        },
        Deliver(0, Answered),
        Deliver(2, Bent(29)),
        StoreFault(0, 82),
        Foreign {
            entity: 7,
            delete: false,
        },
        Deliver(2, Answered),
        Wake(2),
        Deliver(2, Bent(25)),
    ];
    assert_eq!(play(setup, &steps), None);
}
