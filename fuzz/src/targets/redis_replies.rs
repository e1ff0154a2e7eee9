//! What scripts reply, and what is stored of a log's past: somebody else may have written it.

use fantail::log::LogError;
use fantail::log::redis::fuzz::{accepted, entry, history};
use fantail::position::SEQ_MAX;

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "redis_replies",
    run,
    words: &[
        "*2\r\n",
        "*8\r\n",
        "$3\r\n7-0\r\n",
        "$1\r\ne\r\n",
        "$4\r\nk3f9\r\n",
        "$1\r\nt\r\n",
        "$13\r\n1700000000000\r\n",
        "$1\r\nj\r\n",
        "$1\r\n1\r\n",
        "$1\r\nf\r\n",
        "$9\r\ndata: x\n\n\r\n",
        ":7\r\n",
        "_\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*1000000000\r\n",
        "*1\r\n",
        "ok",
        "precondition_failed",
        "key_reused",
        "replayed",
        "aaaa reign 0",
        " bbbb:12",
        "18446744073709551616",
        "9007199254740992",
        "3-0",
    ],
};

fn run(input: &[u8]) {
    if let Ok(entry) = entry(input) {
        assert!(entry.position.seq <= SEQ_MAX);
        let seq = entry.position.seq.to_string();
        assert!(input.windows(seq.len()).any(|window| window == seq.as_bytes()));
    }
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (head, meta, oldest) = (line(), line(), line());
    if let Ok(history) = history(head, meta, oldest) {
        // Nobody is told to go on where nothing can ever be.
        assert!(history.head <= SEQ_MAX);
        assert!((1..=history.head + 1).contains(&history.oldest), "{history:?}");
        assert!(history.past_epochs.iter().all(|&(_, end)| end <= history.head), "{history:?}");
        // Of a topic without a log there is no epoch but the time.
        assert!(meta.is_empty() || meta.starts_with(history.epoch.as_str()), "{meta:?}");
    }
    let words: Vec<String> = text.split('\n').map(ToOwned::to_owned).collect();
    match accepted(&words) {
        Ok(appended) => {
            assert_eq!(words[0], "ok");
            assert_eq!(appended.last.to_string(), format!("{}-{}", words[1], words[2]));
        }
        Err(LogError::PreconditionFailed(_)) => assert_eq!(words[0], "precondition_failed"),
        Err(LogError::KeyReused) => assert_eq!(words, ["key_reused"]),
        Err(LogError::ReservedEventType) => assert_eq!(words, ["reserved_event_type"]),
        Err(LogError::OutcomeUnknown(_)) => {}
        Err(error) => panic!("{error:?} says that nothing was done"),
    }
}
