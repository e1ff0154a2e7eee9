//! [`View`]: what all nodes serve, as it is shown. Made anew when something has changed, and shared
//! by all who ask meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hub::ranking::ByKind;
use crate::log::NodeTotals;
use crate::topic::Topic;

/// Topics, each with how many streams follow it, the largest first.
pub type Largest = ByKind<Vec<(Topic, usize)>>;

/// What all nodes serve.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The largest topics over all nodes, a thousand of each kind at most.
    pub largest: Largest,
    /// Topics over all nodes that are not among them; one that several nodes do not tell of counts
    /// for each.
    pub omitted: usize,
    /// Each node.
    pub nodes: BTreeMap<String, Arc<NodeView>>,
    /// The other nodes were heard when they were last asked. If not, they are here as they last
    /// were, and for some seconds only.
    pub complete: bool,
}

/// What one node serves.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    /// Its streams and topics.
    pub totals: NodeTotals,
    /// Its largest topics.
    pub largest: Largest,
}

impl View {
    /// Open streams over all nodes.
    pub fn total(&self) -> usize {
        self.nodes.values().map(|node| node.totals.streams).sum()
    }
}

impl NodeView {
    /// How many topics the node does not tell of.
    pub fn untold(&self) -> usize {
        let told = self.largest.with_state.len() + self.largest.plain.len();
        self.totals.topics.saturating_sub(told)
    }
}
