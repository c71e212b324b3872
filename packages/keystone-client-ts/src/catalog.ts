// Finding a service's endpoint in a token's catalogue.

export type EndpointInterface = 'public' | 'internal' | 'admin';

export interface CatalogEndpoint {
  readonly interface: EndpointInterface;
  readonly region: string | null;
  readonly url: string;
}

export interface CatalogService {
  readonly type: string;
  readonly name: string;
  readonly endpoints: readonly CatalogEndpoint[];
}

export interface EndpointFilter {
  readonly serviceType: string;
  readonly serviceName?: string;
  /** In order of preference; default internal, public. */
  readonly interfaces?: readonly EndpointInterface[];
  readonly region?: string;
  /** Used instead of any catalogue. */
  readonly override?: string;
}

/** Names under which a service type has been registered over time (the service-types authority's aliases). */
const ALIASES: Readonly<Record<string, readonly string[]>> = {
  'block-storage': ['volumev3', 'block-store', 'volume'],
  volumev3: ['block-storage', 'block-store'],
};

/** The URL without a trailing slash, or undefined. */
export function findEndpoint(catalog: readonly CatalogService[], filter: EndpointFilter): string | undefined {
  if (filter.override !== undefined) return filter.override.replace(/\/+$/, '');
  const types = [filter.serviceType, ...(ALIASES[filter.serviceType] ?? [])];
  for (const type of types) {
    const services = catalog.filter(
      (service) => service.type === type && (filter.serviceName === undefined || service.name === filter.serviceName),
    );
    const url = preferred(
      services.flatMap(({ endpoints }) => endpoints),
      filter,
    );
    if (url !== undefined) return url;
  }
  return undefined;
}

function preferred(
  endpoints: readonly CatalogEndpoint[],
  { interfaces = ['internal', 'public'], region }: EndpointFilter,
): string | undefined {
  for (const wanted of interfaces) {
    const match = endpoints.find(
      (endpoint) => endpoint.interface === wanted && (region === undefined || endpoint.region === region),
    );
    if (match) return match.url.replace(/\/+$/, '');
  }
  return undefined;
}

interface LegacyEndpoint {
  readonly region?: string;
  readonly publicURL?: string;
  readonly internalURL?: string;
  readonly adminURL?: string;
}

/** The v2-style catalogue that oslo.context carries in `service_catalog`. Entries of another shape are left out. */
export function fromLegacyCatalog(entries: readonly unknown[]): readonly CatalogService[] {
  return entries.flatMap((entry) => {
    const { type, name, endpoints } = (entry ?? {}) as { type?: unknown; name?: unknown; endpoints?: unknown };
    if (typeof type !== 'string' || !Array.isArray(endpoints)) return [];
    return [{ type, name: typeof name === 'string' ? name : '', endpoints: endpoints.flatMap(expand) }];
  });
}

function expand(endpoint: LegacyEndpoint): CatalogEndpoint[] {
  const urls = { internal: endpoint.internalURL, public: endpoint.publicURL, admin: endpoint.adminURL } as const;
  return Object.entries(urls).flatMap(([name, url]) =>
    typeof url === 'string' ? [{ interface: name as EndpointInterface, region: endpoint.region ?? null, url }] : [],
  );
}
