//! Random mutations of inputs, for tests that have no coverage to be guided by.

use crate::Target;
use std::time::{Duration, Instant};

/// What stands at the edges of grammars.
const TOKENS: [&str; 24] = [
    "null",
    "{}",
    "[]",
    "\"\"",
    "-0",
    "1e400",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "0.1",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "\u{202e}",
    "\n",
    "\r\n",
    "\0",
    ",",
    "\"id\":",
    "\"key\":",
    "\"fields\":",
    "x''",
    "data: ",
    "{\"$blob\":\"\"}",
];

const MOST_BYTES: usize = 16 << 10;

/// One to four small changes of an input; pieces of `other` may be taken over.
pub fn mutate(dice: &mut fastrand::Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..dice.usize(1..=4) {
        let at = dice.usize(..=bytes.len());
        let piece = |dice: &mut fastrand::Rng, of: &[u8]| {
            let start = dice.usize(..=of.len());
            let end = of.len().min(start + dice.usize(..64));
            of[start..end].to_vec()
        };
        match dice.u8(..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.u8(..8),
            1 if at < bytes.len() => bytes[at] = dice.u8(..),
            2 => bytes.truncate(at),
            3 => {
                let end = bytes.len().min(at + dice.usize(..32));
                bytes.drain(at..end);
            }
            4 => {
                let own = piece(dice, input);
                bytes.splice(at..at, own);
            }
            5 => {
                let others = piece(dice, other);
                bytes.splice(at..at, others);
            }
            6 => {
                let end = bytes.len().min(at + dice.usize(..16));
                let token = TOKENS[dice.usize(..TOKENS.len())];
                bytes.splice(at..end, token.bytes());
            }
            _ => bytes.insert(at, dice.u8(..)),
        }
    }
    bytes.truncate(MOST_BYTES);
    bytes
}

/// Checks mutation after mutation, at most so many and for so long; how many. A seed always gives the
/// same ones.
pub fn mutate_for(
    target: &Target,
    inputs: &[Vec<u8>],
    seed: u64,
    most: u64,
    time: Duration,
) -> u64 {
    let until = Instant::now() + time;
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut done = 0;
    while done < most && Instant::now() < until {
        let pick = |dice: &mut fastrand::Rng| inputs[dice.usize(..inputs.len())].clone();
        let (input, other) = (pick(&mut dice), pick(&mut dice));
        (target.check)(&mutate(&mut dice, &input, &other));
        done += 1;
    }
    done
}
