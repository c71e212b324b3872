// GET /1.0/images/FP/export: one file as it is, or a form of two, streamed.
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import type { FastifyReply } from 'fastify';
import { formatOf } from '#src/engine/images/archive.ts';
import { imageForm } from '#src/engine/images/form.ts';
import type { ImageFileSet } from '#src/engine/images/image-files.ts';

/** A client that takes nothing for so long is gone. */
const IDLE_MS = 60_000;

export async function exportImage(
  reply: FastifyReply,
  files: ImageFileSet,
  fingerprint: string,
): Promise<FastifyReply> {
  reply.raw.setTimeout(IDLE_MS, () => reply.raw.destroy());
  const { extension } = await formatOf(files.metadata);
  if (files.rootfs === undefined) {
    const { size } = await stat(files.metadata);
    return reply
      .header('content-type', 'application/octet-stream')
      .header('content-length', size)
      .header('content-disposition', `inline;filename=${fingerprint}${extension}`)
      .send(createReadStream(files.metadata));
  }
  const rootfs = await formatOf(files.rootfs);
  const { contentType, body } = imageForm([
    { field: 'metadata', path: files.metadata, filename: `meta-${fingerprint}${extension}` },
    { field: 'rootfs', path: files.rootfs, filename: `${fingerprint}${rootfs.extension}` },
  ]);
  return reply.header('content-type', contentType).send(Readable.from(body, { objectMode: false }));
}
