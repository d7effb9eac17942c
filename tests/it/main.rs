//! The one integration binary: everything that needs a real database, a second process or the sources themselves.

mod architecture;
mod support;
mod tidy;
