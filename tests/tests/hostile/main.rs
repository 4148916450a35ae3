//! A real cluster among those who mean it no good: crowds at its door, lines that lose and double and reorder, clocks that
//! jump.

mod clocks;
mod door;
mod lines;
mod support;
