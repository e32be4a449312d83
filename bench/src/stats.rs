//! Medians, quantiles and intervals of few numbers.

use statrs::statistics::{Data, OrderStatistics};

use crate::report::{Interval, Summary};

/// How often numbers are drawn again for an interval.
const RESAMPLES: usize = 1000;
/// What is outside of an interval at each end: 95 % are inside.
const TAIL: f64 = 0.025;
/// The random numbers are the same in every run, so that a report can be made again.
const SEED: u64 = 0x6b65_7463_6821;
/// Fewer numbers have no interval.
const FEWEST: usize = 3;

/// The median; NaN for no numbers.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    Data::new(numbers.to_vec()).median()
}

/// The quantile; NaN for no numbers.
pub(crate) fn quantile(numbers: &[f64], of: f64) -> f64 {
    Data::new(numbers.to_vec()).quantile(of)
}

/// What is said of the values of one measure.
pub(crate) fn summary(numbers: &[f64]) -> Option<Summary> {
    if numbers.is_empty() {
        return None;
    }
    Some(Summary {
        median: median(numbers),
        p95: quantile(numbers, 0.95),
        interval: interval(numbers),
        outliers: outliers(numbers),
    })
}

/// Numbers beyond Tukey's fences: more than one and a half times the middle half's width outside of it. They are
/// counted and shown, and count in everything else.
pub(crate) fn outliers(numbers: &[f64]) -> Vec<f64> {
    let mut data = Data::new(numbers.to_vec());
    let (low, high) = (data.lower_quartile(), data.upper_quartile());
    let width = (high - low) * 1.5;
    let beyond = |number: &f64| *number < low - width || *number > high + width;
    numbers.iter().copied().filter(beyond).collect()
}

/// The interval of the median that has its true value in 95 of 100 runs, by the bootstrap's percentiles (Efron).
pub(crate) fn interval(numbers: &[f64]) -> Option<Interval> {
    let drawn = |random: &mut fastrand::Rng| median(&draw(numbers, random));
    (numbers.len() >= FEWEST).then(|| percentiles(drawn))
}

/// The same for the ratio of two medians that were not taken in pairs.
pub(crate) fn ratio_interval(numbers: &[f64], base: &[f64]) -> Option<Interval> {
    let drawn =
        |random: &mut fastrand::Rng| median(&draw(numbers, random)) / median(&draw(base, random));
    (numbers.len() >= FEWEST && base.len() >= FEWEST).then(|| percentiles(drawn))
}

fn draw(numbers: &[f64], random: &mut fastrand::Rng) -> Vec<f64> {
    let pick = |_| numbers.get(random.usize(..numbers.len())).copied();
    (0..numbers.len()).filter_map(pick).collect()
}

fn percentiles(mut drawn: impl FnMut(&mut fastrand::Rng) -> f64) -> Interval {
    let mut random = fastrand::Rng::with_seed(SEED);
    let medians: Vec<f64> = (0..RESAMPLES).map(|_| drawn(&mut random)).collect();
    Interval {
        low: quantile(&medians, TAIL),
        high: quantile(&medians, 1.0 - TAIL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_holds_the_median_and_widens_with_noise() {
        let calm: Vec<f64> = (0..20).map(|n| 10.0 + f64::from(n % 5) * 0.01).collect();
        let noisy: Vec<f64> = (0..20).map(|n| 10.0 + f64::from(n % 5)).collect();

        let (calm, noisy) = (interval(&calm).unwrap(), interval(&noisy).unwrap());

        assert!(calm.low <= 10.02 && 10.02 <= calm.high);
        assert!(noisy.high - noisy.low > 10.0 * (calm.high - calm.low));
    }

    #[test]
    fn outlier_is_shown_and_not_dropped() {
        let numbers = [1.0, 1.1, 1.2, 1.1, 1.0, 9.0];

        let summary = summary(&numbers).unwrap();

        assert_eq!(summary.outliers, [9.0]);
        assert!(summary.p95 > 1.2);
    }

    #[test]
    fn two_numbers_have_no_interval() {
        assert_eq!(interval(&[1.0, 2.0]), None);
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn equal_distributions_have_a_ratio_interval_around_one() {
        let a: Vec<f64> = (0..15).map(|n| 5.0 + f64::from(n % 4)).collect();

        let interval = ratio_interval(&a, &a).unwrap();

        assert!(interval.low <= 1.0 && interval.high >= 1.0);
    }
}
