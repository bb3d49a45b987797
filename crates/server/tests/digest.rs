//! Digests: what a client needs to find where it differs, and nothing to whom it is not granted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;
#[path = "common/digests.rs"]
mod digests;

use common::*;
use syncline_protocol::DigestRanges;

#[test]
fn ranges_are_those_of_what_a_pull_brings() {
    digests::ranges_are_those_of_what_a_pull_brings(&server());
}

#[test]
fn a_range_is_told_entity_by_entity() {
    digests::a_range_is_told_entity_by_entity(&server());
}

#[test]
fn only_who_may_pull_may_ask() {
    digests::only_who_may_pull_may_ask(&server());
}

#[test]
fn an_answer_is_bounded_and_the_next_goes_on() {
    let server = server();
    let big = "x".repeat(200_000);
    for batch in 0..5 {
        let creates: Vec<_> = (0..20)
            .map(|nth| {
                create(
                    &format!("k{batch}-{nth}"),
                    &format!("id{batch}{nth:02}"),
                    &big,
                )
            })
            .collect();
        server.push(&ann(), &creates);
    }
    let (mut after, mut count, mut answers) = (String::new(), 0, 0);
    loop {
        let response = server.get(&ann(), &format!("/v1/digest?type=task{after}"));
        let answer: DigestRanges = serde_json::from_slice(&response.body).unwrap();
        answers += 1;
        count += answer.ranges.iter().map(|range| range.count).sum::<usize>();
        if !answer.more {
            break;
        }
        after = format!("&after={}", answer.ranges.last().unwrap().until);
    }
    assert_eq!((count, answers), (100, 3), "20 MB, 8 MiB an answer");
}
