//! Seeds of the core level that once broke an invariant, made smaller.

use syncline_simulator::model::plan::Fate::*;
use syncline_simulator::model::plan::Setup;
use syncline_simulator::model::plan::Step::{self, *};
use syncline_simulator::model::play;

fn write(process: u8, entity: u8, pick: u8) -> Step {
    Write {
        process,
        entity,
        pick,
    }
}

fn group(process: u8, entity: u8) -> Step {
    Group { process, entity }
}

/// A deletion behind a create that a copy may have made, of a row that others edited: it is decided on what was created.
#[test]
fn a_deletion_behind_a_create_that_a_copy_may_have_made_is_decided() {
    let setup = Setup {
        dice: 1,
        files: 2,
        second: true,
        orders: 48,
        policy: 3,
        push: 5,
        page: 1,
        attempts: 3,
        entities: 6,
    };
    let steps = [
        Trigger(1, 0),
        write(2, 3, 91),
        Deliver(1, Answered),
        write(0, 7, 232),
        write(0, 6, 245),
        group(1, 6),
        Deliver(1, Doubled),
        Wake(1),
        Deliver(0, Answered),
        Deliver(1, Answered),
        Deliver(0, Answered),
        Deliver(0, Answered),
        Deliver(0, Answered),
        write(0, 4, 225),
        Deliver(0, Answered),
        Deliver(0, Answered),
        StoreFault(0, 97),
        Deliver(0, Doubled),
        write(2, 5, 52),
        Wake(2),
        Deliver(0, Bent(21)),
        Foreign {
            entity: 4,
            delete: false,
        },
        Deliver(0, Answered),
        StoreFault(0, 160),
        Deliver(0, Doubled),
        write(0, 4, 230),
        Wake(2),
        Deliver(0, Forked),
    ];
    assert_eq!(play(setup, &steps), None);
}

/// A row that was deleted and made anew, which a restored server lacks and whose sweep is held: the one before is gone.
#[test]
fn what_was_made_anew_does_not_become_what_it_was_before_a_held_sweep() {
    let setup = Setup {
        dice: 1,
        files: 2,
        second: true,
        orders: 0,
        policy: 0,
        push: 4,
        page: 3,
        attempts: 2,
        entities: 5,
    };
    let steps = [
        group(0, 2),
        group(2, 5),
        Person(1, 172),
        write(2, 0, 224),
        write(0, 5, 201),
        write(1, 7, 243),
        Server(false),
        Deliver(1, Answered),
        write(2, 3, 46),
        write(0, 2, 232),
        group(0, 3),
        write(1, 5, 96),
        write(2, 3, 248),
        group(1, 0),
        write(2, 0, 231),
        Deliver(1, Answered),
        write(2, 6, 139),
        write(2, 7, 189),
        write(0, 3, 225),
        Deliver(1, Answered),
        group(0, 0),
        write(1, 3, 161),
        Deliver(1, Bent(27)),
        group(2, 5),
        write(1, 3, 13),
        write(0, 6, 238),
        write(2, 3, 87),
        Deliver(1, Doubled),
        write(1, 2, 228),
        group(2, 3),
        write(2, 0, 248),
        Server(true),
        write(0, 1, 138),
        write(1, 1, 200),
        group(2, 1),
        write(1, 4, 11),
        Deliver(1, Answered),
        write(2, 4, 97),
        group(1, 6),
        Deliver(1, Answered),
        Deliver(1, Answered),
        Deliver(1, Doubled),
        Deliver(1, TooLarge),
    ];
    assert_eq!(play(setup, &steps), None);
}
