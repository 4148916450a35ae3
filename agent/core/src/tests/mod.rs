//! The core alone, driven by hand and by chance.








