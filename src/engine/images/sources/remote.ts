// What an image server is to the engine, whatever protocol it speaks.
import type { UploadPart } from '../image-files.ts';

/** Where an image comes from, as clients say it. */
export interface ImageSource {
  readonly server: string;
  /** lxd, simplestreams or direct; empty: lxd. */
  readonly protocol: string;
  /** PEM of the server's certificate; empty: the system's authorities decide. */
  readonly certificate: string;
  /** Of a private image. */
  readonly secret: string;
  /** A name, or a fingerprint or its beginning. */
  readonly alias: string;
  /** Of the server; empty: its default one. */
  readonly project: string;
}

/** What the server says of an image. */
export interface RemoteImage {
  readonly fingerprint: string;
  readonly filename: string;
  readonly sizeBytes: number;
  readonly properties: Readonly<Record<string, string>>;
  readonly createdAt: string;
  readonly expiresAt: string;
}

export interface TransferOptions {
  readonly signal: AbortSignal;
  /** "rootfs: 10% (2.1MB/s)". */
  readonly progress: (text: string) => void;
}

export interface ImageRemote {
  /** By alias, or by fingerprint. AppError 'not_found'. */
  find(name: string, signal: AbortSignal): Promise<RemoteImage>;
  /** The files, in the order of the fingerprint. */
  parts(image: RemoteImage, options: TransferOptions): AsyncIterable<UploadPart>;
}
