// What moves images between servers: export, push, tokens, refresh.
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import type { Engine } from '#src/engine/engine.ts';
import { imageUrl } from '#src/engine/images/new-image.ts';
import type { ApiApp } from './app.ts';
import { operation } from './envelope.ts';
import { exportImage } from './image-export.ts';
import { findImageToken, spendImageToken, startImageToken } from './image-tokens.ts';
import { ImageParams, ImageQuery, visibleImage } from './images.ts';
import { existingProject } from './project.ts';
import { partial } from './schema.ts';
import { Type } from './type.ts';

const ExportPost = partial({
  target: Type.String(),
  secret: Type.String(),
  certificate: Type.String(),
  project: Type.String(),
});

type Deps = Pick<Engine, 'images' | 'operations' | 'context' | 'downloads' | 'upkeep'>;

export function registerImageTransferRoutes(app: ApiApp, deps: Deps): void {
  const { images, operations, context, downloads, upkeep } = deps;

  app.get(
    '/1.0/images/:fingerprint/export',
    {
      schema: { summary: 'Download an image', params: ImageParams, querystring: ImageQuery },
      config: { untrusted: true },
    },
    async (request, reply) => {
      const image = visibleImage(request, deps);
      const asked = { project: existingProject(request), fingerprint: image.fingerprint };
      const token = findImageToken(operations, asked, request.query.secret);
      if (token) spendImageToken(operations, token);
      context.events.lifecycle({ action: 'image-retrieved', source: imageUrl(image), project: image.project });
      return exportImage(reply, await images.files.find(image.fingerprint), image.fingerprint);
    },
  );

  app.post(
    '/1.0/images/:fingerprint/export',
    {
      schema: {
        summary: 'Push an image to another server',
        params: ImageParams,
        body: ExportPost,
        querystring: ImageQuery,
      },
      config: { async: true },
    },
    async (request, reply) => {
      const own = existingProject(request);
      const image = images.resolve(own, { fingerprint: request.params.fingerprint });
      const { target = '', secret = '', certificate = '', project = '' } = request.body;
      const resources = { images: [imageUrl(image)] };
      const id = operations.start(
        { class: 'task', description: 'Downloading image', resources, project: own },
        (running) => downloads.push(image, { server: target, secret, certificate, project }, running),
      );
      return operation(reply, operations, id);
    },
  );

  app.post(
    '/1.0/images/:fingerprint/secret',
    { schema: { summary: 'Make a token for a private image', params: ImageParams }, config: { async: true } },
    async (request, reply) => {
      const project = existingProject(request);
      const { fingerprint } = images.resolve(project, { fingerprint: request.params.fingerprint });
      return operation(reply, operations, startImageToken(deps, { project, fingerprint }));
    },
  );

  app.post(
    '/1.0/images/:fingerprint/refresh',
    {
      schema: { summary: 'Update an image from its source', params: ImageParams, querystring: ImageQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const project = existingProject(request);
      const image = images.resolve(project, { fingerprint: request.params.fingerprint });
      const resources = { images: [imageUrl(image)] };
      const id = operations.start({ class: 'task', description: 'Refreshing image', resources, project }, (running) =>
        upkeep.refresh(image, running),
      );
      return operation(reply, operations, id);
    },
  );
}
