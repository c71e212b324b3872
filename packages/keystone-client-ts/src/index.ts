// OpenStack Keystone v3: sessions, catalogue, and authenticated requests to the other services.
export type { ApplicationCredentialAuth, Auth, NameInDomain, PasswordAuth, TokenAuth } from './auth.ts';
export {
  type CatalogEndpoint,
  type CatalogService,
  type EndpointFilter,
  type EndpointInterface,
  findEndpoint,
  fromLegacyCatalog,
} from './catalog.ts';
export { OpenStackError, type OpenStackErrorKind } from './errors.ts';
export type { HttpOptions, HttpResponse, TlsOptions } from './http.ts';
export { ServiceClient, type ServiceClientOptions, type ServiceRequest } from './service-client.ts';
export { KeystoneSession, type SessionOptions, type Token, type TokenSource } from './session.ts';
