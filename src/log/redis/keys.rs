//! The names of all keys and channels in Redis. Those of one topic share a hash tag, so that a
//! Redis Cluster would keep them on one server; what is stored under them stands in `log.lua` and
//! `board.lua`.

use super::slots;
use crate::log::IdempotencyKey;
use crate::topic::Topic;

/// The keys of one topic (see `log.lua`).
#[derive(Debug)]
pub(super) struct TopicKeys {
    pub(super) seq: String,
    pub(super) log: String,
    pub(super) meta: String,
    pub(super) state: String,
    /// Of all topics of its slot.
    births: String,
}

/// The keys of one board as an earlier version had them (see `board_move.lua`).
#[derive(Debug)]
pub(super) struct OldBoardKeys {
    pub(super) lists: String,
    pub(super) titles: String,
    pub(super) tasks: String,
    orders: String,
}

impl TopicKeys {
    /// The keys of the log alone: KEYS of a script on a topic that has one.
    pub(super) fn of_log(self) -> [String; 3] {
        [self.seq, self.log, self.meta]
    }

    /// KEYS of a script on a topic that answered `which`, behind those of the log.
    pub(super) fn others(self) -> [String; 2] {
        [self.births, self.state]
    }
}

impl OldBoardKeys {
    /// The order of the tasks of one list.
    pub(super) fn order(&self, list: &str) -> String {
        format!("{}{list}", self.orders)
    }
}

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

    /// All keys of one topic.
    pub(super) fn topic(&self, topic: &Topic) -> TopicKeys {
        TopicKeys {
            seq: self.seq(topic),
            log: self.log(topic),
            meta: self.meta(topic),
            state: self.state(topic),
            births: self.births(topic),
        }
    }

    /// Counter of a topic's entries.
    pub(super) fn seq(&self, topic: &Topic) -> String {
        self.of(topic, "seq")
    }

    /// A pattern (as `SCAN` takes it) of the counters of all topics whose names begin so.
    pub(super) fn pattern_of_seq(&self, prefix: &str) -> String {
        format!("{}:{{{}*}}:seq", literally(&self.prefix), literally(prefix))
    }

    /// The topic whose counter this key is.
    pub(super) fn topic_of_seq(&self, key: &str) -> Option<Topic> {
        self.topic_of_channel(key.strip_suffix(":seq")?)
    }

    /// The newest entries of a topic.
    pub(super) fn log(&self, topic: &Topic) -> String {
        self.of(topic, "log")
    }

    /// Epochs of a topic.
    pub(super) fn meta(&self, topic: &Topic) -> String {
        self.of(topic, "meta")
    }

    /// When logs of topics of this one's slot were last begun.
    pub(super) fn births(&self, topic: &Topic) -> String {
        self.births_of(slots::slot(topic.as_str().as_bytes()))
    }

    /// The same by the number of the slot, in which the key lies itself.
    pub(super) fn births_of(&self, slot: u16) -> String {
        format!("{}:{{{}}}:births", self.prefix, slots::tag_of(slot))
    }

    /// There if the topic has a state, which then is a board.
    pub(super) fn state(&self, topic: &Topic) -> String {
        self.of(topic, "board")
    }

    /// What a request with this idempotency key was answered.
    pub(super) fn once(&self, topic: &Topic, key: &IdempotencyKey) -> String {
        self.of(topic, &format!("once:{}", key.as_str()))
    }

    /// KEYS of the scripts on a board.
    pub(super) fn board(&self, board: &Topic) -> [String; 6] {
        let TopicKeys { seq, log, meta, state, births } = self.topic(board);
        [seq, log, meta, births, state, self.order(board)]
    }

    /// The order of a board's tasks.
    pub(super) fn order(&self, board: &Topic) -> String {
        self.of(board, "board:order")
    }

    /// The keys of a board as an earlier version had them.
    pub(super) fn old_board(&self, board: &Topic) -> OldBoardKeys {
        OldBoardKeys {
            lists: self.of(board, "board:lists"),
            titles: self.of(board, "board:titles"),
            tasks: self.of(board, "board:tasks"),
            orders: self.of(board, "board:order:"),
        }
    }

    /// What the keys of all states look like.
    pub(super) fn all_states(&self) -> String {
        format!("{}:{{*}}:board", self.prefix)
    }

    /// The topic whose state has this key.
    pub(super) fn topic_of_state(&self, key: &str) -> Option<Topic> {
        let name = key.strip_prefix(&self.prefix)?.strip_prefix(":{")?.strip_suffix("}:board")?;
        Topic::new(name).ok()
    }

    /// Where lists with such ids lead (see `index.lua`).
    pub(super) fn lists(&self, list: &Topic) -> String {
        self.lists_of(slots::crc16(list.as_str().as_bytes()) as u8)
    }

    /// The same for all lists.
    pub(super) fn all_lists(&self) -> impl Iterator<Item = String> {
        (0..=u8::MAX).map(|part| self.lists_of(part))
    }

    fn lists_of(&self, part: u8) -> String {
        format!("{}:{{index,{part:02x}}}:lists", self.prefix)
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

    /// Names of all nodes.
    pub(super) fn nodes(&self) -> String {
        self.shared("nodes")
    }

    /// What one node tells of itself: that it lives, its topics, their last changes.
    pub(super) fn node(&self, node: &str) -> [String; 3] {
        ["alive", "topics", "changes"].map(|what| format!("{}:{{node,{node}}}:{what}", self.prefix))
    }

    /// A key that belongs to no topic. Its hash tag has a comma, which no topic's name has.
    pub(super) fn shared(&self, what: &str) -> String {
        format!("{}:{{index,}}:{what}", self.prefix)
    }
}

/// A pattern that this text alone matches.
fn literally(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_keys_share_its_tag_and_nothing_else_can_be_a_topics() {
        let keys = Keys::new("fantail");
        let topic = Topic::new("board-1").unwrap();
        assert_eq!(keys.topic(&topic).seq, "fantail:{board-1}:seq");
        assert_eq!(keys.topic(&topic).log, "fantail:{board-1}:log");
        assert_eq!(keys.channel(&topic), "fantail:{board-1}");
        assert_eq!(keys.topic_of_channel("fantail:{board-1}"), Some(topic.clone()));
        assert_eq!(keys.topic_of_channel(&keys.canary_channel("n")), None);
        assert_eq!(keys.topic_of_channel("other:{board-1}"), None);
        assert_eq!(keys.topic_of_seq("fantail:{a}:seq"), Topic::new("a").ok());
        assert_eq!(keys.topic_of_seq("fantail:{a}:log"), None);
        assert_eq!(keys.pattern_of_seq("a*[b]"), r"fantail:{a\*\[b\]*}:seq");
        let slot = |key: &str| slots::slot(key.as_bytes());
        assert_eq!(slot(&keys.births(&topic)), slot("fantail:{board-1}"));
    }
}
