//! Scenarios of the core level that once broke an invariant: rows that a snapshot lacks, and answers about
//! what another copy of the file or another history did. `testkit/tests/absent.rs` tells some of them of
//! the real store.

use syncline_simulator::model::plan::Fate::*;
use syncline_simulator::model::plan::Setup;
use syncline_simulator::model::plan::Step::{self, *};
use syncline_simulator::model::play;

const ONE_FILE: Setup = Setup {
    dice: 1,
    files: 1,
    second: false,
    orders: 0,
    policy: 0,
    push: 5,
    page: 5,
    attempts: 5,
    entities: 4,
};

const fn write(process: u8, entity: u8, pick: u8) -> Step {
    Write {
        process,
        entity,
        pick,
    }
}

const fn elsewhere(entity: u8, delete: bool) -> Step {
    Foreign { entity, delete }
}

/// Seed 3000077093, F:S8: the model asked for an edit to be cancelled before the one below it was answered,
/// and took the answer for the state below both (O1).
#[test]
fn what_may_have_been_sent_before_is_answered_before_an_edit_is_cancelled() {
    let setup = Setup {
        policy: 1,
        push: 3,
        page: 4,
        entities: 5,
        ..ONE_FILE
    };
    let steps = [
        write(1, 1, 178),
        Pass(31425),
        Deliver(0, Answered),
        Deliver(2, Answered),
        Deliver(2, Answered),
        write(0, 3, 91),
        Deliver(1, Answered),
        write(0, 7, 15),
        Person(2, 98),
        Group {
            process: 1,
            entity: 3,
        },
        write(2, 3, 72),
        Deliver(2, Answered),
        Deliver(2, Bent(1)),
        Person(0, 174),
    ];
    assert_eq!(play(setup, &steps), None);
}

/// Seed 3000031903, F:S12: a row whose create was answered as another copy's while a snapshot was read was
/// taken for deleted at the end of it, and so its deletion was not sent.
#[test]
fn a_row_that_was_pushed_during_a_snapshot_is_not_taken_for_deleted() {
    let setup = Setup {
        files: 2,
        second: true,
        policy: 1,
        push: 1,
        page: 1,
        attempts: 3,
        ..ONE_FILE
    };
    let steps = [
        Trigger(1, 4),
        Deliver(1, Answered),
        write(0, 3, 176),
        write(1, 7, 172),
        write(2, 2, 40),
        write(1, 6, 223),
        Deliver(1, Answered),
        Deliver(1, Answered),
        Deliver(1, Answered),
        Deliver(1, Answered),
        Deliver(1, Garbled),
        write(1, 1, 109),
        write(1, 5, 30),
        Pass(4668),
        Deliver(1, Doubled),
    ];
    assert_eq!(play(setup, &steps), None);
}

/// Seed 3000032724, F:S8: the last row was deleted on both sides before the first snapshot, which was
/// compared with nothing; below the deletion stayed a row that the server did not have any more.
#[test]
fn the_last_row_is_deleted_on_both_sides_before_the_first_snapshot() {
    let setup = Setup {
        second: true,
        policy: 2,
        push: 3,
        page: 4,
        attempts: 3,
        ..ONE_FILE
    };
    let steps = [
        Trigger(2, 0),
        write(0, 0, 249),
        Deliver(2, Answered),
        Deliver(2, Answered),
        write(1, 4, 130),
        Deliver(0, Answered),
        elsewhere(4, true),
        Deliver(2, Answered),
        StoreFault(0, 201),
        Deliver(0, Answered),
        Wake(0),
        Deliver(2, AnswerLost),
    ];
    assert_eq!(play(setup, &steps), None);
}

/// Seed 3000178844, F:S12: the answer to another copy's create took away an edit of a row that was deleted
/// since, without a conflict.
#[test]
fn an_edit_of_a_row_that_another_copy_made_and_somebody_deleted_is_a_conflict() {
    let setup = Setup {
        policy: 4,
        push: 2,
        page: 3,
        attempts: 4,
        entities: 5,
        ..ONE_FILE
    };
    let steps = [
        Trigger(2, 0),
        Deliver(0, Answered),
        Deliver(1, Answered),
        write(1, 5, 223),
        write(1, 6, 230),
        write(1, 2, 185),
        Deliver(2, Answered),
        write(0, 7, 123),
        Wake(2),
        Deliver(0, Answered),
        StoreFault(1, 218),
        Deliver(2, Answered),
        Epoch,
        Pass(8139),
        write(2, 7, 89),
        StoreFault(0, 53),
        Deliver(1, Answered),
        Poison(2, true),
        elsewhere(7, true),
    ];
    assert_eq!(play(setup, &steps), None);
}

/// Seed 3000196860, F:S11: a create without an answer was done, and the row deleted since; a snapshot of a
/// new history told of the latter first, and the row stayed.
#[test]
fn a_row_that_was_made_and_deleted_under_an_unanswered_create_leaves() {
    let setup = Setup {
        files: 2,
        second: true,
        orders: 9,
        policy: 2,
        push: 4,
        page: 4,
        attempts: 2,
        entities: 3,
        ..ONE_FILE
    };
    let steps = [
        Trigger(0, 0),
        Deliver(0, Answered),
        Group {
            process: 2,
            entity: 1,
        },
        Deliver(0, Answered),
        Deliver(0, Answered),
        Deliver(0, AnswerLost),
        Epoch,
        elsewhere(7, true),
    ];
    assert_eq!(play(setup, &steps), None);
}

/// Seed 3000681525, F:S12: a deletion that was inferred from a snapshot, and waited for the answer to another
/// copy's create, was taken for newer than that create, and so the row's own deletion was not sent.
#[test]
fn what_waits_for_the_answer_to_another_copys_create_can_be_older() {
    let setup = Setup {
        attempts: 3,
        entities: 2,
        ..ONE_FILE
    };
    let steps = [
        Trigger(2, 0),
        Group {
            process: 2,
            entity: 1,
        },
        Deliver(0, Answered),
        Deliver(0, Answered),
        Poison(5, true),
        Deliver(0, Forked),
        Deliver(0, Bent(13)),
        Deliver(0, Answered),
        Wake(1),
        Deliver(0, Answered),
        write(0, 4, 130),
        StoreFault(1, 123),
        Poison(3, false),
        Deliver(2, Answered),
    ];
    assert_eq!(play(setup, &steps), None);
}
