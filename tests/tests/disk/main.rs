//! A coordinator whose disk is full, or loses what it was given (G10): real processes, and real file systems that only the test
//! sees. They need root.

mod full;
mod lost;
mod support;
