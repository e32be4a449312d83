//! When a program that has ended is started again.

use std::time::Duration;

use runtime::RestartPolicy;

/// The first pause; each further one is twice as long.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A program that ran so long has started well: the next pause is the first again.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// The policy at work.
#[derive(Debug)]
pub(crate) struct Restart {
    pub(crate) policy: RestartPolicy,
    /// How often the program was started again.
    pub(crate) count: u32,
    /// Somebody asked the container to end.
    pub(crate) is_stopped: bool,
    /// Something other than the policy wants it started again, once.
    pub(crate) is_forced: bool,
    pause: Duration,
}

impl Restart {
    pub(crate) fn new(policy: RestartPolicy) -> Self {
        Self {
            policy,
            count: 0,
            is_stopped: false,
            is_forced: false,
            pause: FIRST_PAUSE,
        }
    }

    /// The program has ended with `exit_code` after it ran for `ran`: how long to wait until it is
    /// started again, or `None` when that was the end.
    pub(crate) fn next(&mut self, exit_code: u8, ran: Duration) -> Option<Duration> {
        let is_forced = std::mem::take(&mut self.is_forced);
        let wanted = is_forced || self.policy.wants_restart(exit_code, self.count);
        if self.is_stopped || !wanted {
            return None;
        }
        if ran >= GOOD_RUN {
            self.pause = FIRST_PAUSE;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        self.count = self.count.saturating_add(1);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_up_to_a_minute_and_starts_anew_after_a_good_run() {
        let mut restart = Restart::new(RestartPolicy::Always);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            pauses.push(restart.next(0, Duration::ZERO).unwrap().as_millis());
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[9..], [51_200, 60_000, 60_000]);
        assert_eq!(restart.next(0, GOOD_RUN), Some(FIRST_PAUSE));
        assert_eq!(restart.next(0, Duration::ZERO), Some(FIRST_PAUSE * 2));
    }

    #[test]
    fn stopped_container_stays_down() {
        let mut restart = Restart::new(RestartPolicy::Always);
        restart.is_stopped = true;
        restart.is_forced = true;
        assert_eq!(restart.next(1, Duration::ZERO), None);
    }

    #[test]
    fn failures_are_counted() {
        let mut restart = Restart::new("on-failure:2".parse().unwrap());
        assert!(restart.next(1, Duration::ZERO).is_some());
        assert!(restart.next(1, Duration::ZERO).is_some());
        assert_eq!(restart.next(1, Duration::ZERO), None);
        assert_eq!(restart.count, 2);
    }
}
