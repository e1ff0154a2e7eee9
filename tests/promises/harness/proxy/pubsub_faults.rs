//! What may happen to announcements on their way, each with its probability.

use std::collections::VecDeque;

/// Which channels something is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channels {
    /// Those of topics: canaries come through, so that a node believes it hears.
    #[default]
    Topics,
    Canaries,
    All,
}

impl Channels {
    fn include(self, channel: &str) -> bool {
        match self {
            Channels::Topics => !channel.contains(":canary:"),
            Channels::Canaries => channel.contains(":canary:"),
            Channels::All => true,
        }
    }
}

/// What happens to announcements; probabilities from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct PubsubFaults {
    pub channels: Channels,
    pub drop: f64,
    pub duplicate: f64,
    /// Held back until some that came later have passed.
    pub reorder: f64,
}

impl PubsubFaults {
    pub fn dropping(channels: Channels, drop: f64) -> PubsubFaults {
        PubsubFaults { channels, drop, ..PubsubFaults::default() }
    }

    pub fn duplicating(duplicate: f64) -> PubsubFaults {
        PubsubFaults { duplicate, ..PubsubFaults::default() }
    }

    pub fn reordering(reorder: f64) -> PubsubFaults {
        PubsubFaults { reorder, ..PubsubFaults::default() }
    }
}

/// Announcements of one connection that are held back, with how many must pass them first.
#[derive(Default)]
pub(super) struct Held(VecDeque<(u32, Vec<u8>)>);

impl Held {
    /// What is sent now that `value` has come on `channel`.
    pub(super) fn pass(
        &mut self,
        value: &[u8],
        channel: &str,
        pubsub_faults: &PubsubFaults,
        random: &mut fastrand::Rng,
    ) -> Vec<u8> {
        let mut sent = Vec::new();
        let concerned = pubsub_faults.channels.include(channel);
        if !concerned || random.f64() >= pubsub_faults.drop {
            if concerned && random.f64() < pubsub_faults.reorder {
                self.0.push_back((random.u32(1..5), value.to_vec()));
            } else {
                sent.extend_from_slice(value);
                if concerned && random.f64() < pubsub_faults.duplicate {
                    // At once, or after some others.
                    self.0.push_back((random.u32(1..5), value.to_vec()));
                }
            }
        }
        for (passed_by, _) in &mut self.0 {
            *passed_by = passed_by.saturating_sub(1);
        }
        let (free, held) = std::mem::take(&mut self.0).into_iter().partition(|held| held.0 == 0);
        self.0 = held;
        let free: VecDeque<(u32, Vec<u8>)> = free;
        for (_, value) in free {
            sent.extend_from_slice(&value);
        }
        sent
    }
}
