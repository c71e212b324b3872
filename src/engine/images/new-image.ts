// The row of an image that has just come in: what was said of it, and what its metadata says.
import type { ImageMetadata } from '../context.ts';
import type { NewImage } from '../db/images.ts';
import { type ImageRecord, ZERO_TIME } from '../db/records.ts';
import type { LifecycleEvent } from '../types.ts';
import type { StagedImage } from './image-files.ts';

/** What an upload says of itself. */
export interface UploadedImage {
  readonly project: string;
  readonly filename: string;
  readonly isPublic: boolean;
  readonly autoUpdate: boolean;
  readonly properties: Readonly<Record<string, string>>;
  readonly profiles?: readonly string[];
  readonly aliases: readonly { readonly name: string; readonly description: string }[];
  /** What the client says it is; checked when given. */
  readonly fingerprint?: string;
  /** Absent: what its metadata says. */
  readonly createdAt?: string;
  readonly expiresAt?: string;
  /** `properties` are all there are, whatever its metadata says. */
  readonly isDescribed?: boolean;
  /** Got for an instance: goes when nobody has used it for long. */
  readonly cached?: boolean;
  readonly updateSource?: ImageRecord['updateSource'];
}

export function imageUrl({ fingerprint }: Pick<ImageRecord, 'fingerprint'>): string {
  return `/1.0/images/${fingerprint}`;
}

export function created(image: ImageRecord): LifecycleEvent {
  const { project, type } = image;
  return { action: 'image-created', source: imageUrl(image), project, context: { type } };
}

export function imageRow(
  { fingerprint, sizeBytes }: Pick<StagedImage, 'fingerprint' | 'sizeBytes'>,
  upload: UploadedImage,
  metadata: ImageMetadata,
): NewImage {
  const { project, filename, isPublic, autoUpdate, properties, profiles = ['default'] } = upload;
  return {
    project,
    filename,
    isPublic,
    autoUpdate,
    profiles,
    fingerprint,
    sizeBytes,
    cached: upload.cached ?? false,
    architecture: metadata.architecture,
    type: 'container',
    properties: upload.isDescribed === true ? properties : { ...metadata.properties, ...properties },
    updateSource: upload.updateSource ?? null,
    createdAt: upload.createdAt ?? timeOf(metadata.creationDate),
    expiresAt: upload.expiresAt ?? timeOf(metadata.expiryDate),
    lastUsedAt: ZERO_TIME,
    uploadedAt: new Date().toISOString(),
  };
}

/** 0 is 1970, as LXD shows it: "never" for an expiry. */
function timeOf(seconds: number): string {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? ZERO_TIME : date.toISOString();
}
