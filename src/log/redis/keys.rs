//! The names of all keys and channels in Redis (design §5).

use crate::log::IdempotencyKey;
use crate::topic::Topic;

/// Makes keys under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Keys {
        Keys { prefix: prefix.to_owned() }
    }

    /// A key of one topic; all share its hash tag and so its slot.
    fn of(&self, topic: &Topic, what: &str) -> String {
        format!("{}:{{{topic}}}:{what}", self.prefix)
    }

    /// KEYS of the scripts on a topic: seq, log, meta, board.
    pub(super) fn topic(&self, topic: &Topic) -> [String; 4] {
        ["seq", "log", "meta", "board"].map(|what| self.of(topic, what))
    }

    /// What a request with this idempotency key was answered.
    pub(super) fn once(&self, topic: &Topic, key: &IdempotencyKey) -> String {
        self.of(topic, &format!("once:{}", key.as_str()))
    }

    /// Counter of a topic's entries.
    pub(super) fn seq(&self, topic: &Topic) -> String {
        self.of(topic, "seq")
    }

    /// Epochs of a topic.
    pub(super) fn meta(&self, topic: &Topic) -> String {
        self.of(topic, "meta")
    }

    /// KEYS of the scripts on a board.
    pub(super) fn board(&self, board: &Topic) -> [String; 7] {
        ["seq", "log", "meta", "board", "board:lists", "board:titles", "board:tasks"]
            .map(|what| self.of(board, what))
    }

    /// What the keys of a board's task orders begin with.
    pub(super) fn order(&self, board: &Topic) -> String {
        self.of(board, "board:order:")
    }

    /// The channel of a topic's announcements.
    pub(super) fn channel(&self, topic: &Topic) -> String {
        format!("{}:{{{topic}}}", self.prefix)
    }

    /// The topic whose announcements come on `channel`.
    pub(super) fn topic_of_channel(&self, channel: &str) -> Option<Topic> {
        let name = channel.strip_prefix(&self.prefix)?.strip_prefix(":{")?.strip_suffix('}')?;
        Topic::new(name).ok()
    }

    /// The channel on which one node hears its own canary.
    pub(super) fn canary_channel(&self, node: &str) -> String {
        self.shared(&format!("canary:{node}"))
    }

    /// A key that belongs to no topic. Its hash tag has a comma, which no topic's name has.
    pub(super) fn shared(&self, what: &str) -> String {
        format!("{}:{{index,}}:{what}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_keys_share_its_tag_and_nothing_else_can_be_a_topics() {
        let keys = Keys::new("fantail");
        let topic = Topic::new("board-1").unwrap();
        assert_eq!(keys.topic(&topic)[0], "fantail:{board-1}:seq");
        assert_eq!(keys.topic(&topic)[1], "fantail:{board-1}:log");
        assert_eq!(keys.channel(&topic), "fantail:{board-1}");
        assert_eq!(keys.topic_of_channel("fantail:{board-1}"), Some(topic));
        assert_eq!(keys.topic_of_channel(&keys.canary_channel("n")), None);
        assert_eq!(keys.topic_of_channel("other:{board-1}"), None);
    }
}
