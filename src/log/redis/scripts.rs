//! The Lua scripts, each with what it begins with.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, Script};

macro_rules! scripts {
    ($($name:ident = $($file:literal)+;)+) => {
        $(pub(super) static $name: LazyLock<(&'static str, Script)> = LazyLock::new(|| {
            let text = concat!($(include_str!($file), "\n"),+);
            let last = [$($file),+].last().copied().unwrap_or_default();
            let name = last.rsplit('/').next().unwrap_or_default();
            (name.trim_end_matches(".lua"), Script::new(text))
        });)+
    };
}

scripts! {
    APPEND = "server.lua" "log.lua" "append.lua";
    OPEN = "server.lua" "log.lua" "open.lua";
    READ = "server.lua" "log.lua" "read.lua";
    DELETE = "server.lua" "log.lua" "delete.lua";
    TASK_CREATE = "server.lua" "log.lua" "boards/board.lua" "boards/task_create.lua";
    TASK_RENAME = "server.lua" "log.lua" "boards/board.lua" "boards/task_rename.lua";
    TASK_MOVE = "server.lua" "log.lua" "boards/board.lua" "boards/task_move.lua";
    TASK_DELETE = "server.lua" "log.lua" "boards/board.lua" "boards/task_delete.lua";
    LIST_CREATE = "server.lua" "log.lua" "boards/board.lua" "boards/list_create.lua";
    BOARD_CREATE = "server.lua" "log.lua" "boards/board.lua" "boards/board_create.lua";
    BOARD_READ = "server.lua" "log.lua" "boards/board.lua" "boards/board_read.lua";
    BOARD_MOVE = "server.lua" "boards/board_move.lua";
    INDEX_BEGIN = "server.lua" "boards/index.lua" "boards/index_begin.lua";
    INDEX_BOARD = "server.lua" "boards/index.lua" "boards/index_board.lua";
    INDEX_END = "server.lua" "boards/index.lua" "boards/index_end.lua";
    BOARD_CLAIM = "server.lua" "boards/index.lua" "boards/board_claim.lua";
    BOARD_FIND = "server.lua" "boards/index.lua" "boards/board_find.lua";
    BOARD_RELEASE = "boards/board_release.lua";
    LIST_NUMBER = "server.lua" "boards/index.lua" "boards/list_number.lua";
    LIST_CLAIM = "server.lua" "boards/index.lua" "boards/list_claim.lua";
    LIST_FIND = "server.lua" "boards/index.lua" "boards/list_find.lua";
    LIST_RELEASE = "boards/list_release.lua";
    PUBLISH_STATS = "publish_stats.lua";
    NOTE_NODE = "server.lua" "note_node.lua";
    LAYOUT = "server.lua" "layout.lua";
    LAYOUT_END = "layout_end.lua";
    REVOCATIONS = "revocations.lua";
    REVOKE = "revoke.lua";
    FORGET_REVOCATIONS = "forget_revocations.lua";
    TICKET_PUT = "server.lua" "ticket_put.lua";
    TICKET_TAKE = "server.lua" "ticket_take.lua";
    RIGHTS = "rights.lua";
}

/// One call of a script, with its keys and arguments.
pub(super) struct Call<'a> {
    name: &'static str,
    invocation: redis::ScriptInvocation<'a>,
}

impl Call<'static> {
    pub(super) fn new(script: &'static (&'static str, Script), keys: &[String]) -> Call<'static> {
        let mut invocation = script.1.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        Call { name: script.0, invocation }
    }

    /// One more key, if there is one.
    pub(super) fn key(mut self, key: Option<String>) -> Call<'static> {
        if let Some(key) = key {
            self.invocation.key(key);
        }
        self
    }

    /// More keys.
    pub(super) fn keys(mut self, keys: &[String]) -> Call<'static> {
        for key in keys {
            self.invocation.key(key);
        }
        self
    }

    pub(super) fn arg(mut self, arg: impl redis::ToRedisArgs) -> Call<'static> {
        self.invocation.arg(arg);
        self
    }
}

impl Call<'_> {
    /// The script's name, for metrics.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) async fn invoke<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<T, RedisError> {
        self.invocation.invoke_async(connection).await
    }
}
