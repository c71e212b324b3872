// What a client needs to know of one section of nova.conf ([placement], [neutron], [glance] …), already parsed.
import type { Auth, EndpointInterface, TlsOptions } from 'keystone-client-ts';

export interface ServiceSettings {
  /** Absent in sections without credentials ([glance]). */
  readonly auth?: Auth;
  readonly tls?: TlsOptions;
  /** Milliseconds for one request; absent: 60 000. */
  readonly timeoutMs?: number;
  readonly serviceType?: string;
  readonly serviceName?: string;
  readonly interfaces?: readonly EndpointInterface[];
  readonly region?: string;
  readonly endpointOverride?: string;
  readonly connectRetries?: number;
  readonly connectRetryDelayMs?: number;
  readonly statusRetries?: number;
  readonly retriableStatuses?: readonly number[];
}
