//! Golden transcripts: whole syncs as the state machine sees them, input by input and effect by
//! effect, in `tests/transcripts/*.txt`. After a wanted change, run with `UPDATE_TRANSCRIPTS=1`
//! and read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)] // a test reads and writes its files

mod script;

use script::Script;
use std::time::Duration;
use syncline_core::{FaultKind, Reason, RemoteError, StoreAnswer, StoreFault, Survey, SyncOrder};

fn overloaded(seconds: u64) -> RemoteError {
    RemoteError::Transient {
        status: 503,
        detail: "busy".to_owned(),
        retry_after: Some(Duration::from_secs(seconds)),
        overloaded: true,
    }
}

fn broken() -> RemoteError {
    RemoteError::Transient {
        status: 500,
        detail: "broken".to_owned(),
        retry_after: None,
        overloaded: false,
    }
}

fn unreachable() -> RemoteError {
    RemoteError::Unreachable {
        detail: "no answer".to_owned(),
    }
}

fn refused() -> RemoteError {
    RemoteError::Auth {
        detail: "token expired".to_owned(),
    }
}

#[test]
fn a_first_sync_pushes_then_pulls_to_the_head() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[1, 2]);
    script.push_applied();
    script.booked();
    script.claim(&[]);
    script.cursor(None);
    script.page("c1", false);
    script.applied();
    script.cursor(Some("c1"));
    script.page("c2", true);
    script.applied();
    script.survey(Survey::default());
    script.matches("first_sync");
}

#[test]
fn a_pull_that_leaves_work_is_followed_by_a_second_push() {
    let mut script = Script::new();
    script.trigger(Reason::RemoteHint);
    script.connect();
    script.claim(&[]);
    script.cursor(Some("c1"));
    script.page("c2", true);
    script.applied();
    script.survey(Survey {
        claimable: true,
        unsettled: 1,
        ..Survey::default()
    });
    script.claim(&[1]);
    script.push_applied();
    script.booked();
    script.claim(&[]);
    script.cursor(Some("c2"));
    script.page("c3", true);
    script.applied();
    script.survey(Survey::default());
    script.matches("second_push");
}

#[test]
fn a_server_that_is_busy_is_left_alone_as_long_as_it_asked() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[1]);
    script.fail(overloaded(60));
    script.booked();
    script.trigger(Reason::MutationEnqueued);
    script.trigger(Reason::UserAsked);
    for _ in 0..4 {
        script.pass_to_wakeup();
        script.renewed();
    }
    script.matches("retry_after");
}

#[test]
fn refused_credentials_are_refreshed_once() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[1]);
    script.fail(refused());
    script.booked();
    script.credentials(Ok(()));
    script.connect();
    script.claim(&[1]);
    script.fail(refused());
    script.booked();
    script.trigger(Reason::MutationEnqueued);
    script.trigger(Reason::AuthRefreshed);
    script.matches("credentials");
}

#[test]
fn a_batch_that_fails_as_a_whole_is_halved_until_the_culprit_stands_alone() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[1, 2]);
    script.fail(broken());
    script.booked();
    script.pass_to_wakeup();
    script.answer(StoreAnswer::Acquired);
    script.claim(&[1]);
    script.push_applied();
    script.booked();
    script.claim(&[2]);
    script.fail(broken());
    script.booked();
    script.claim(&[]);
    script.matches("bisection");
}

#[test]
fn the_next_batch_is_prepared_while_one_is_under_way() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim_of_many(&[1, 2]);
    script.claim_of_many(&[3, 4]);
    script.push_applied();
    script.booked();
    script.claim(&[5]);
    script.fail(unreachable());
    script.booked();
    script.matches("prepared");
}

#[test]
fn a_push_that_hangs_although_the_server_is_there_is_halved() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[1, 2]);
    script.fail(unreachable());
    script.booked();
    script.pass_to_wakeup();
    for _ in 0..2 {
        script.connect();
        script.claim(&[1, 2]);
        script.fail(unreachable());
        script.booked();
        script.pass_to_wakeup();
    }
    script.connect();
    script.claim(&[1]);
    script.matches("hung");
}

#[test]
fn a_copied_file_takes_a_new_identity_and_greets_again() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[1]);
    script.fail(RemoteError::Forked {
        detail: "token".to_owned(),
    });
    script.booked();
    script.answer(StoreAnswer::Reminted {
        client: "another".into(),
    });
    script.connect();
    script.claim(&[1]);
    script.matches("forked");
}

#[test]
fn what_was_given_up_is_cancelled_when_there_is_nothing_to_send() {
    let mut script = Script::new();
    script.trigger(Reason::Remediated);
    script.connect();
    script.claim_cancel(7);
    script.cancelled();
    script.booked();
    script.claim(&[]);
    script.matches("cancel");
}

#[test]
fn the_remote_is_told_what_the_tables_look_like() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.answer(StoreAnswer::Acquired);
    script.greeted_with_types();
    script.registered();
    script.answer(StoreAnswer::RegisteredNoted);
    script.claim(&[]);
    script.matches("register");
}

#[test]
fn a_forgotten_position_means_to_greet_again_and_start_with_a_snapshot() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[]);
    script.cursor(Some("old"));
    script.fail(RemoteError::CursorGone {
        detail: "expired".to_owned(),
    });
    script.answer(StoreAnswer::CursorForgotten);
    script.connect();
    script.claim(&[]);
    script.cursor(None);
    script.page("c1", true);
    script.applied();
    script.survey(Survey::default());
    script.matches("cursor_gone");
}

#[test]
fn work_that_waits_for_a_person_blocks_nothing_else() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[]);
    script.cursor(None);
    script.page("c1", true);
    script.applied();
    script.survey(Survey {
        unsettled: 1,
        open_conflicts: 1,
        ..Survey::default()
    });
    script.trigger(Reason::RemoteHint);
    script.matches("blocked_conflict");
}

#[test]
fn an_engine_that_lost_its_lease_stands_back() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[1]);
    script.pass_to_wakeup();
    script.answer(StoreAnswer::Failed(StoreFault {
        kind: FaultKind::Fenced,
        detail: "another process".to_owned(),
    }));
    script.push_applied_late();
    script.pass_to_wakeup();
    script.answer(StoreAnswer::HeldByOther { remaining_ms: 1000 });
    script.matches("fenced");
}

/// F:A9, I1: account and epoch are checked by the store; a greeting that it could not take in did not
/// happen, and nothing is sent before another one did.
#[test]
fn a_greeting_that_the_store_could_not_take_in_is_asked_for_again() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.greet_in_vain(StoreFault {
        kind: FaultKind::Unavailable,
        detail: "disk I/O error".to_owned(),
    });
    script.pass_to_wakeup();
    script.connect();
    script.claim(&[1]);
    script.push_applied();
    script.matches("greeted_again");
}

/// F:L4: whatever a resolver decides, a server that says *stale* for ever gets no push after the other.
#[test]
fn a_server_that_refuses_for_ever_is_not_asked_for_ever() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    for _ in 0..8 {
        script.claim(&[1]);
        script.push_stale();
        script.booked();
    }
    // Instead of a ninth time it receives, and pushes once in a round from then on.
    script.cursor(None);
    script.page("c1", true);
    script.applied();
    script.survey(work());
    script.claim(&[1]);
    script.push_stale();
    script.booked();
    script.cursor(Some("c1"));
    script.matches("refused_for_ever");
}

#[test]
fn writes_close_together_travel_together_within_the_longest_wait() {
    let mut script = Script::new();
    for _ in 0..24 {
        script.trigger(Reason::MutationEnqueued);
        script.pass(90);
        script.tick();
    }
    script.matches("debounce");
}

/// What is left to be pushed, and can be.
fn work() -> Survey {
    Survey {
        claimable: true,
        unsettled: 1,
        ..Survey::default()
    }
}

#[test]
fn pull_then_push_looks_before_each_claim_and_reads_the_feed_last() {
    let mut script = Script::with(SyncOrder::PullThenPush);
    script.trigger(Reason::AppStart);
    script.connect();
    script.targets(&["a", "b", "c"], 3);
    script.fetched("e");
    script.met(1, false);
    script.fetched("e");
    script.met(0, false);
    script.claim(&[1]);
    script.push_applied();
    script.booked();
    script.targets(&[], 3);
    script.claim(&[]);
    script.cursor(Some("c1"));
    script.page("c2", true);
    script.applied();
    script.survey(work());
    script.targets(&[], 3);
    script.claim(&[]);
    script.cursor(Some("c2"));
    script.page("c2", true);
    script.applied();
    script.survey(Survey::default());
    script.matches("pull_then_push");
}

#[test]
fn pull_then_push_reads_the_feed_first_where_looking_does_not_do() {
    // Nothing was read yet.
    let mut script = Script::with(SyncOrder::PullThenPush);
    script.trigger(Reason::AppStart);
    script.connect();
    script.unread();
    script.cursor(None);
    script.page("c1", true);
    script.applied();
    script.cursor(Some("c1"));
    script.claim(&[1]);
    script.push_applied();
    script.booked();
    script.claim(&[]);
    script.survey(Survey::default());
    // What was seen needs the feed; another history; a server that is broken where it is asked.
    let transient = RemoteError::Transient {
        status: 500,
        detail: "broken".to_owned(),
        retry_after: None,
        overloaded: false,
    };
    for case in 0..3 {
        script.trigger(Reason::UserAsked);
        script.acquired();
        script.targets(&["a"], 4);
        match case {
            0 => {
                script.fetched("e");
                script.met(0, true);
            }
            1 => script.fetched("another"),
            _ => script.fail(transient.clone()),
        }
        script.cursor(Some("c1"));
        script.page("c1", true);
        script.applied();
        script.claim(&[]);
        script.survey(Survey::default());
    }
    // It does not give single entities: it is not asked again in this session.
    script.trigger(Reason::UserAsked);
    script.acquired();
    script.targets(&["a"], 4);
    script.fail(RemoteError::Misconfigured {
        status: 404,
        detail: "no such service".to_owned(),
    });
    for _ in 0..2 {
        script.cursor(Some("c1"));
        script.page("c1", true);
        script.applied();
        script.claim(&[]);
        script.survey(Survey::default());
        script.trigger(Reason::UserAsked);
        script.acquired();
    }
    script.matches("pull_then_push_feed_first");
}

#[test]
fn pull_only_leaves_local_writes_in_the_outbox() {
    let mut script = Script::with(SyncOrder::PullOnly);
    script.trigger(Reason::MutationEnqueued);
    script.pass_to_wakeup();
    script.connect();
    script.cursor(None);
    script.page("c1", true);
    script.applied();
    script.survey(work());
    script.matches("pull_only");
}

#[test]
fn push_only_asks_for_nothing_new() {
    let mut script = Script::with(SyncOrder::PushOnly);
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[1]);
    script.push_applied();
    script.booked();
    script.claim(&[]);
    script.survey(Survey::default());
    script.matches("push_only");
}

#[test]
fn a_pause_gives_up_what_is_under_way_and_remembers_what_is_wanted() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[1, 2]);
    script.pause();
    script.booked();
    script.push_applied_late();
    script.trigger(Reason::MutationEnqueued);
    script.trigger(Reason::UserAsked);
    script.resume();
    script.connect();
    script.claim(&[1, 2]);
    script.matches("pause");
}

#[test]
fn a_metered_network_carries_urgent_mutations_only() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[]);
    script.cursor(None);
    script.page("c1", true);
    script.applied();
    script.survey(Survey::default());
    script.constrain(true);
    script.trigger(Reason::MutationEnqueued);
    script.trigger(Reason::RemoteHint);
    script.trigger(Reason::UrgentMutation);
    script.answer(StoreAnswer::Acquired);
    script.claim(&[1]);
    script.push_applied();
    script.booked();
    script.claim(&[]);
    script.survey(work());
    script.constrain(false);
    script.answer(StoreAnswer::Acquired);
    script.claim(&[2]);
    script.matches("metered");
}

#[test]
fn a_pass_ends_when_its_requests_are_used_up() {
    let mut script = Script::new();
    script.pause();
    script.pass_of(2, u64::MAX);
    script.connect();
    script.claim_of_many(&[1, 2]);
    script.push_applied();
    script.booked();
    script.end_pass();
    script.trigger(Reason::MutationEnqueued);
    script.matches("pass_requests");
}

#[test]
fn a_pass_sends_and_asks_for_no_more_bytes_than_are_left() {
    let mut script = Script::new();
    script.pause();
    script.pass_of(u64::MAX, 3);
    script.connect();
    script.claim_of_many(&[1]);
    script.claim(&[2]);
    script.push_applied();
    script.booked();
    script.claim(&[2]);
    script.booked();
    script.end_pass();
    script.matches("pass_bytes");
}

#[test]
fn a_pass_that_ends_too_early_gives_up_what_is_under_way() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[]);
    script.cursor(None);
    script.page("c1", true);
    script.applied();
    script.survey(Survey::default());
    script.pass_of(9, 9_000);
    script.answer(StoreAnswer::Acquired);
    script.claim(&[1]);
    script.end_pass();
    script.booked();
    script.push_applied_late();
    script.matches("pass_deadline");
}

#[test]
fn a_pass_does_not_cut_a_wait_short_that_the_server_asked_for() {
    let mut script = Script::new();
    script.trigger(Reason::AppStart);
    script.connect();
    script.claim(&[1]);
    script.fail(overloaded(60));
    script.booked();
    script.pass_of(9, 9_000);
    script.end_pass();
    script.matches("pass_retry_after");
}

#[test]
fn urgent_mutations_do_not_wait_for_others_and_background_ones_do() {
    let mut script = Script::new();
    script.trigger(Reason::BackgroundMutation);
    script.trigger(Reason::MutationEnqueued);
    script.pass(10);
    script.tick();
    script.trigger(Reason::UrgentMutation);
    script.matches("urgency");
}

#[test]
fn the_same_inputs_give_the_same_effects() {
    let play = || {
        let mut script = Script::new();
        script.trigger(Reason::AppStart);
        script.connect();
        script.claim(&[1]);
        script.fail(broken());
        script.booked();
        script.into_text()
    };
    assert_eq!(play(), play());
}
