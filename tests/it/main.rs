//! The one integration binary: everything that needs a real database, a second process or the sources themselves.

mod architecture;
mod grpc;
mod grpc_hostile;
mod grpc_tls;
mod support;
mod tidy;
