//! Where all randomness of a simulation comes from: xoshiro256\*\* (Blackman and Vigna, 2018), seeded by
//! splitmix64. Written down here so that a seed means the same whatever the dependencies do. No global
//! state: whoever draws holds the generator.

/// A seeded generator.
#[derive(Debug, Clone)]
pub struct Rng([u64; 4]);

/// The next state and draw of splitmix64; also a good hash of one number.
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// A generator whose draws the seed decides.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| splitmix(&mut state)))
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let drawn = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }

    /// Below `bound`; 0 when the bound is 0. The bias (below 2^-32 for small bounds) does not matter here.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.draw()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// An index into something of this length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// One of these; `None` when there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.index(from.len()))
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// The index of one of the weights, as often as it weighs; 0 when nothing weighs anything.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut at = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return index,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_another_does_not() {
        let draws = |seed| {
            let mut rng = Rng::new(seed);
            (0..100).map(|_| rng.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        // The reference implementation's first draw for these states.
        assert_eq!(Rng([1, 2, 3, 4]).draw(), 11520);
    }

    #[test]
    fn weights_decide_and_a_weight_of_nothing_is_never_drawn() {
        let mut rng = Rng::new(1);
        let mut drawn = [0; 3];
        for _ in 0..1_000 {
            drawn[rng.weighted(&[1, 0, 9])] += 1;
        }
        assert!(
            drawn[1] == 0 && drawn[0] > 50 && drawn[2] > 800,
            "{drawn:?}"
        );
        assert_eq!((rng.below(0), rng.weighted(&[])), (0, 0));
    }
}
