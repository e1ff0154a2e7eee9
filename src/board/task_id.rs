//! What the ids of tasks say: `task-5` is the fifth task of the first board, `task-5-12` that of the
//! board with the number 12. So whoever knows a task's id knows its board, and a board numbers its
//! tasks itself. Pure.

use crate::topic::Topic;

/// The number of the board whose tasks do not say it.
const FIRST_BOARD: u64 = 1;

/// The id of a task by its number on its board, and by the board's number.
pub(crate) fn task_id(number: u64, board_number: u64) -> String {
    match board_number {
        FIRST_BOARD => format!("task-{number}"),
        _ => format!("task-{number}-{board_number}"),
    }
}

/// The number of the board that a task of this id is on; `None` if no task can have it.
pub(crate) fn number_of_board(task: &Topic) -> Option<u64> {
    let numbers = task.as_str().strip_prefix("task-")?;
    let (number, board_number) = match numbers.split_once('-') {
        Some((number, board_number)) => (number, board_number.parse().ok()?),
        None => (numbers, FIRST_BOARD),
    };
    // Each has one id: no zeros before it, and the first board is not said.
    let id = task_id(number.parse().ok()?, board_number);
    (id == task.as_str()).then_some(board_number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_an_id_says_a_board() {
        let of = |id: &str| number_of_board(&Topic::new(id).unwrap());
        assert_eq!((of("task-5"), of("task-5-12")), (Some(1), Some(12)));
        for id in [
            "task-5-1",
            "task-05",
            "task-5-012",
            "task-",
            "task-5-",
            "task--5",
            "list-5",
            "task-+5",
        ] {
            assert_eq!(of(id), None, "{id}");
        }
    }

    proptest! {
        #[test]
        fn an_id_says_its_board(number: u64, board in 1..u64::MAX) {
            let id = Topic::new(&task_id(number, board)).unwrap();
            prop_assert_eq!(number_of_board(&id), Some(board));
        }
    }
}
