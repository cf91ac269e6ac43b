//! All of gRPC behind one call: the generic handler, reflection, health, and gRPC-web in front of them.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use http::{Request, Response, Version};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic_health::pb::health_server::HealthServer;
use tonic_web::GrpcWebLayer;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service, ServiceExt as _};

use super::call::Api;
use super::ending::Ending;
use super::handler::{Handler, refused};
use super::health::Health;
use super::stop::WithSession;
use crate::auth::{Authenticator, Session, Visitor};
use crate::error::{Error, Result};
use crate::schema::tables::Tables;

type Route = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Serves requests whose content type begins with `application/grpc`.
#[derive(Clone)]
pub struct GrpcServer {
    inner: Arc<Inner>,
}

struct Inner {
    handler: Handler,
    authenticator: Arc<Authenticator>,
    health: Route,
    reflection_v1: LateRoute,
    reflection_v1alpha: LateRoute,
}

/// Made when first called: decoding all descriptors costs more than the rest of the start.
type LateRoute = LazyLock<Result<Route>, Box<dyn FnOnce() -> Result<Route> + Send>>;

impl GrpcServer {
    /// A server for the method table. `descriptors` is the encoded set that reflection shows. Streams end
    /// when `stop` is cancelled.
    pub fn new(
        tables: Arc<Tables>,
        api: Arc<dyn Api>,
        authenticator: Arc<Authenticator>,
        health: &Health,
        descriptors: &'static [u8],
        stop: CancellationToken,
    ) -> Self {
        let reflection = move || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(descriptors)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // The messages of error details, so that clients can print them.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        let inner = Inner {
            handler: Handler::new(tables, api, stop),
            authenticator,
            health: BoxCloneSyncService::new(HealthServer::new(health.service())),
            reflection_v1: LazyLock::new(Box::new(move || {
                reflection().build_v1().map(BoxCloneSyncService::new).map_err(Error::internal)
            })),
            reflection_v1alpha: LazyLock::new(Box::new(move || {
                reflection().build_v1alpha().map(BoxCloneSyncService::new).map_err(Error::internal)
            })),
        };
        GrpcServer { inner: Arc::new(inner) }
    }

    /// Answers a gRPC request over HTTP/2, or a gRPC-web request over any version.
    pub async fn serve(&self, request: Request<Body>) -> Response<Body> {
        if is_web(&request) {
            let answered = GrpcWebLayer::new().layer(self.clone()).oneshot(request).await;
            return answered.unwrap_or_else(|never| match never {});
        }
        if request.version() != Version::HTTP_2 {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            return response;
        }
        self.dispatch(request).await
    }

    /// The answer to a request that is refused before anything of it is looked at, in the form that it asks for.
    pub fn refuse<B>(&self, request: &Request<B>, error: &Error) -> Response<Body> {
        let mut response = refused(error);
        if is_web(request)
            && let Some(asked) = request.headers().get(http::header::CONTENT_TYPE)
        {
            response.headers_mut().insert(http::header::CONTENT_TYPE, asked.clone());
        }
        response
    }

    async fn dispatch(&self, mut request: Request<Body>) -> Response<Body> {
        let ending = request.extensions_mut().remove::<Ending>();
        let response = self.routed(request).await;
        match ending {
            Some(ending) => ending.follow(response),
            None => response,
        }
    }

    async fn routed(&self, mut request: Request<Body>) -> Response<Body> {
        let inner = &*self.inner;
        let path = request.uri().path();
        let mut session = Session::default();
        let route = if path.starts_with("/grpc.health.v1.Health/") {
            // Probes have no credentials, and health says nothing but whether we serve.
            Some(Ok(&inner.health))
        } else {
            let authorization = request.headers().get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
            let visitor = request.extensions().get::<Arc<Visitor>>().cloned().unwrap_or_default();
            session = match inner.authenticator.admit(&visitor, authorization).await {
                Ok(session) => session,
                Err(error) => return refused(&error),
            };
            if path.starts_with("/grpc.reflection.v1.ServerReflection/") {
                Some(inner.reflection_v1.as_ref())
            } else if path.starts_with("/grpc.reflection.v1alpha.ServerReflection/") {
                Some(inner.reflection_v1alpha.as_ref())
            } else {
                None
            }
        };
        match route {
            Some(Err(error)) => refused(error),
            Some(Ok(route)) => {
                let answered = route.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
                answered.map(|body| Body::new(WithSession::new(body, &session)))
            }
            None => {
                request.extensions_mut().insert(session);
                inner.handler.handle(request).await
            }
        }
    }
}

/// True for content types of gRPC and gRPC-web.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    content_type(request).is_some_and(|value| value.starts_with(b"application/grpc"))
}

fn is_web<B>(request: &Request<B>) -> bool {
    content_type(request).is_some_and(|value| value.starts_with(b"application/grpc-web"))
}

fn content_type<B>(request: &Request<B>) -> Option<&[u8]> {
    request.headers().get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes)
}

impl Service<Request<Body>> for GrpcServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(server.dispatch(request).await) })
    }
}
