// What the clients of all services share: sessions from settings, credentials of a request.
import {
  fromLegacyCatalog,
  KeystoneSession,
  OpenStackError,
  ServiceClient,
  type ServiceRequest,
  type TokenSource,
} from 'keystone-client-ts';
import type { ServiceSettings } from './settings.ts';
import type { Credentials } from './types.ts';

export interface ClientOptions {
  readonly settings: ServiceSettings;
  /** Sends X-Service-Token along ([service_user] send_service_user_token). */
  readonly serviceTokens?: TokenSource;
  /** Whose catalogue is used when neither the section nor the request has one. */
  readonly fallbackTokens?: TokenSource;
}

/** A session of a section's own service user; undefined for sections without credentials. */
export function createSession({ auth, tls, timeoutMs }: ServiceSettings): KeystoneSession | undefined {
  return auth && new KeystoneSession({ auth, ...tls, ...(timeoutMs !== undefined && { timeoutMs }) });
}

export function createServiceClient(
  defaults: { readonly serviceType: string; readonly connectRetries?: number; readonly statusRetries?: number },
  { settings, serviceTokens, fallbackTokens }: ClientOptions,
): ServiceClient {
  const tokens = createSession(settings) ?? fallbackTokens;
  const { serviceType, serviceName, interfaces, region, endpointOverride, tls, auth: _auth, ...rest } = settings;
  return new ServiceClient({
    ...tls,
    ...defaults,
    ...rest,
    endpoint: {
      serviceType: serviceType ?? defaults.serviceType,
      ...(serviceName !== undefined && { serviceName }),
      ...(interfaces && { interfaces }),
      ...(region !== undefined && { region }),
      ...(endpointOverride !== undefined && { override: endpointOverride }),
    },
    ...(tokens && { tokens }),
    ...(serviceTokens && { serviceTokens }),
  });
}

/** The part of a request that says in whose name it is made. */
export function asRequestedBy(credentials: Credentials): Pick<ServiceRequest, 'token' | 'catalog' | 'requestId'> {
  const { requestId } = credentials;
  if (credentials.kind === 'service') return { requestId };
  return {
    requestId,
    token: credentials.token,
    ...(credentials.catalog && { catalog: fromLegacyCatalog(credentials.catalog) }),
  };
}

/** The service answered that there is no such thing; not that the catalogue has no such service. */
export function isAbsent(error: unknown): boolean {
  return error instanceof OpenStackError && error.status === 404 && error.code !== 'EndpointNotFound';
}

export function withSignal(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal ? { signal } : {};
}
