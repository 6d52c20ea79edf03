//! One seed for every random choice of a test run, printed so that a failure can be run again.

use std::env;
use std::sync::LazyLock;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// The variable that fixes the seed: a decimal number.
pub const SEED_VARIABLE: &str = "LEASEHOLD_TEST_SEED";

static SEED: LazyLock<u64> = LazyLock::new(|| match env::var(SEED_VARIABLE) {
    Ok(text) => text.trim().parse().unwrap_or_else(|error| panic!("{SEED_VARIABLE}={text} is no seed: {error}")),
    Err(_) => rand::random(),
});

/// The seed of this run, from `LEASEHOLD_TEST_SEED` or random; prints the line that repeats the run.
pub fn seed() -> u64 {
    eprintln!("run again with: {SEED_VARIABLE}={}", *SEED);
    *SEED
}

/// A generator that draws the same numbers whenever the run has the same seed.
pub fn generator() -> StdRng {
    StdRng::seed_from_u64(seed())
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    #[test]
    fn one_run_has_one_seed() {
        assert_eq!(super::generator().random::<u64>(), super::generator().random::<u64>());
    }
}
