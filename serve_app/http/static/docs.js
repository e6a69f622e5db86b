"use strict";
// validatorUrl: null keeps Swagger UI from asking an outside service whether the document is valid.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
