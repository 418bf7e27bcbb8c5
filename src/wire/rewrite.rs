//! Commands in other words: absolute times, and what an older server knows.
