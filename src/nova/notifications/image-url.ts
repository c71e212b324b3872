// Where an image is, for the legacy payload's `image_ref_url`.
import type { RequestContext } from '../context.ts';

export interface ImageEndpointOptions {
  readonly endpointOverride?: string;
  /** `valid_interfaces`, in order of preference. */
  readonly interfaces?: readonly string[];
  readonly region?: string;
}

/** `<endpoint>/images/<id>`; the id alone when the context, of background work, has no catalogue. */
export function imageUrl(context: RequestContext, imageRef: string | null, options: ImageEndpointOptions = {}): string {
  const endpoint = options.endpointOverride ?? catalogEndpoint(context, options);
  const id = imageRef ?? '';
  return endpoint === undefined ? id : `${endpoint.replace(/\/+$/, '')}/images/${id}`;
}

/** Nova's filtered catalogue: `{type, endpoints: [{region, publicURL, internalURL, adminURL}]}`. */
function catalogEndpoint(
  context: RequestContext,
  { interfaces = ['internal', 'public'], region }: ImageEndpointOptions,
): string | undefined {
  const endpoints = context.serviceCatalog
    .filter((service) => propertyOf(service, 'type') === 'image')
    .flatMap((service) => {
      const list = propertyOf(service, 'endpoints');
      return Array.isArray(list) ? list : [];
    })
    .filter((endpoint) => region === undefined || propertyOf(endpoint, 'region') === region);
  return interfaces
    .flatMap((name) => endpoints.map((endpoint) => propertyOf(endpoint, `${name}URL`)))
    .find((url) => typeof url === 'string');
}

function propertyOf(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}
