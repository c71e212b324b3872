// Tokens of images: the holder may download a private image, or upload one that was asked for, without being trusted.
import { randomBytes } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import type { OperationRegistry, OperationView } from '#src/engine/operations/operations.ts';
import type { ImageRecord } from '#src/engine/db/records.ts';
import { imageUrl, type UploadedImage } from '#src/engine/images/new-image.ts';
import { inProject } from '#src/engine/projects/project-url.ts';
import { AppError } from '#src/lib/errors.ts';
import { aborted } from '#src/lib/wait.ts';
import type { EngineContext } from '#src/engine/context.ts';

const IMAGE_TOKEN = 'Image download token';

type Deps = { readonly operations: OperationRegistry; readonly context: Pick<EngineContext, 'events'> };

/** `told`: what an image that is uploaded with it will be. */
export function startImageToken(
  { operations, context }: Deps,
  { project, fingerprint }: Pick<ImageRecord, 'project' | 'fingerprint'>,
  told: Readonly<Record<string, unknown>> = {},
): string {
  const source = imageUrl({ fingerprint });
  const id = operations.start(
    {
      class: 'token',
      description: IMAGE_TOKEN,
      resources: { images: [source] },
      project,
      mayCancel: true,
      metadata: { ...told, secret: randomBytes(32).toString('hex') },
    },
    ({ signal }) => aborted(signal),
  );
  context.events.lifecycle({ action: 'image-secret-created', source, project });
  return id;
}

/** Also one that was used just now: a download asks twice, for what it is and for its content. */
export function findImageToken(
  operations: OperationRegistry,
  image: Pick<ImageRecord, 'project' | 'fingerprint'>,
  secret: string | undefined,
): OperationView | undefined {
  if (secret === undefined || secret === '') return undefined;
  // As operations show it: with its project.
  const url = inProject(imageUrl(image), image.project);
  return operations.list(image.project).find(({ description, resources, metadata }) => {
    return (
      description === IMAGE_TOKEN && resources['images']?.includes(url) === true && metadata?.['secret'] === secret
    );
  });
}

/** A token is good for one transfer. */
export function spendImageToken(operations: OperationRegistry, { id, status }: OperationView): void {
  if (status === 'Running') operations.cancel(id);
}

/** Of an upload; AppError 'forbidden' when the client is not trusted and has none. */
export function takeUploadToken(request: FastifyRequest, operations: OperationRegistry): OperationView | undefined {
  const { headers, caller, query } = request;
  const [secret, fingerprint] = [headers['x-lxd-secret'], headers['x-lxd-fingerprint']].map(String);
  const { project = 'default' } = query as { readonly project?: string };
  const token = findImageToken(operations, { project, fingerprint: fingerprint ?? '' }, secret);
  const isFresh = token?.status === 'Running';
  if (token && isFresh) spendImageToken(operations, token);
  else if (!caller.trusted) throw new AppError('forbidden', 'not authorized');
  return isFresh ? token : undefined;
}

/** What whoever made the token said of the image. */
export function describedBy({ metadata }: OperationView, upload: UploadedImage): UploadedImage {
  const { aliases, properties, public: isPublic, expires_at: expiresAt } = (metadata ?? {}) as Told;
  return {
    ...upload,
    ...(aliases && { aliases }),
    ...(properties && { properties: { ...properties, ...upload.properties }, isDescribed: true }),
    ...(isPublic !== undefined && { isPublic }),
    ...(expiresAt !== undefined && { expiresAt }),
  };
}

interface Told {
  readonly aliases?: UploadedImage['aliases'];
  readonly properties?: UploadedImage['properties'];
  readonly public?: boolean;
  readonly expires_at?: string;
}
