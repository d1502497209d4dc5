//! One cell of the matrix.

/// What came of trying a feature with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Works.
    Yes,
    /// We refused it in words that mean "I do not know this".
    NotYet(String),
    /// The peer has no such thing, or cannot be made to do it.
    Cannot,
    /// Does not work.
    Fails(String),
}

impl Cell {
    pub fn shown(&self) -> &'static str {
        match self {
            Cell::Yes => "yes",
            Cell::NotYet(_) => "not yet",
            Cell::Cannot => "–",
            Cell::Fails(_) => "**fails**",
        }
    }

    /// The second finding counts only if the first one is good.
    pub fn and(self, then: impl FnOnce() -> Cell) -> Cell {
        match self {
            Cell::Yes => then(),
            other => other,
        }
    }
}

impl From<anyhow::Result<Cell>> for Cell {
    fn from(result: anyhow::Result<Cell>) -> Cell {
        result.unwrap_or_else(|error| Cell::Fails(format!("{error:#}")))
    }
}
